"""Configuration files: TOML to `Config` and back, presets by name, and overrides `section.key=value`."""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from common.config import Config
from common.config.key import Section, alternatives, entries, section_of
from common.errors import UserError
from common.overrides import merge as merge
from common.overrides import mixture_label, unreadable


def preset_names() -> list[str]:
    """The names of the included configurations."""
    return sorted(
        p.name.removesuffix(".toml") for p in resources.files("common.presets").iterdir() if p.name.endswith(".toml")
    )


def load(source: str, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a preset or of a TOML file, with overrides.

    Args:
      source: the name of a preset, or else a path.
      overrides: `section.key=value` each, applied in order.

    Raises:
      UserError: no such preset or file, not TOML, an unknown key (the nearest one is named), or an impossible value.
    """
    try:
        return from_dict(merge(_read(source), overrides))
    except RecursionError as error:  # of tables that dotted keys open, which can be parsed
        raise UserError(f"{source}, with what --set adds, {unreadable(error)}") from None


def _read(source: str) -> dict[str, Any]:
    if source in preset_names():
        text = (resources.files("common.presets") / f"{source}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            hint = f"presets are {', '.join(preset_names())}"
            raise UserError(
                f"cannot read the configuration {source!r} ({error}): give a TOML file, or a preset; {hint}"
            ) from None
    return parse(text, source)


def parse(text: str, name: str) -> dict[str, Any]:
    """TOML as nested dictionaries. Raises UserError, which calls the text `name`."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} {unreadable(error)}") from None


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Raises UserError for an unknown key, a value of the wrong type, or an impossible value."""
    config: Config = _build(Config, _inherited(tree), "")
    return config


def _inherited(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree with what the families of its mixture leave out, taken from its sections [task] and [dataset]."""
    if not isinstance(mixture := tree.get("mixture"), list):
        return tree

    def whole(own: Any, name: str) -> Any:
        shared, given = tree.get(name, {}), own.get(name, {})
        return {**shared, **given} if isinstance(shared, Mapping) and isinstance(given, Mapping) else given

    return {
        **tree,
        "mixture": [
            {**own, "task": whole(own, "task"), "dataset": whole(own, "dataset")} if isinstance(own, Mapping) else own
            for own in mixture
        ],
    }


def _build(cls: type[Section], tree: Any, prefix: str) -> Any:
    if not isinstance(tree, Mapping):
        raise UserError(
            f"{prefix.rstrip('.')} = {tree!r} is a value, but a section is expected: write [{prefix.rstrip('.')}]"
        )
    kinds = {entry.field: entry.kind for entry in entries(cls)}
    for key in tree:
        if key not in kinds:
            raise UserError(f"unknown key {prefix}{key}: {_nearest(key, prefix, kinds)}")
    values = {}
    for key, value in tree.items():
        kind = kinds[key]
        values[key] = (
            _build(kind, value, f"{prefix}{key}.")
            if isinstance(kind, type) and issubclass(kind, Section)
            else _convert(kind, value, prefix + key)
        )
    return cls(**values)


def _nearest(key: str, prefix: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"did you mean {prefix}{close[0]}?" if close else f"known keys are {', '.join(prefix + k for k in known)}"


def _convert(kind: Any, value: Any, name: str) -> Any:
    """The value as the type of its key. Whether it is a possible value, its section checks."""
    if type(value) is int and not -(2**63) <= value < 2**63:  # whose digits Python may refuse to print
        raise UserError(f"{name} needs {value.bit_length() + 1} bits: a number of at most 64 bits is expected")
    if len(alternatives(kind)) > 1:
        return _convert(_alternative(kind, value, name), value, name)
    kind = str if get_origin(kind) is Literal else kind
    if kind is float and type(value) is int:
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} = {value}: a finite number is expected")
    if kind in (int, float, bool, str):
        if type(value) is not kind:
            raise UserError(
                f"{name} = {value!r} has the wrong type: {kind.__name__} is expected, not {type(value).__name__}"
            )
        return _text(value, name) if kind is str else value
    if get_origin(kind) is tuple:
        return _list(get_args(kind)[0], value, name)
    if not isinstance(value, Mapping):
        raise UserError(f"{name} = {value!r} has the wrong type: a table is expected")
    return {_text(key, name): _plain(item, f"{name}.{key}") for key, item in value.items()}


def _list(each: Any, value: Any, name: str) -> tuple[Any, ...]:
    """A list of values, or of tables, which errors name."""
    tables = isinstance(each, type) and issubclass(each, Section)
    if not isinstance(value, list | tuple):
        expected = (
            f"a list of tables is expected: write [[{name}]]" if tables else f"a list of {type_name(each)} is expected"
        )
        raise UserError(f"{name} = {value!r} has the wrong type: {expected}")
    if not tables:
        return tuple(_convert(each, item, name) for item in value)
    made = []
    for one in value:
        label = mixture_label(one)
        try:
            made.append(_build(each, one, f"{name}.{label}."))
        except UserError as error:
            raise UserError(f"in the {name}'s family {label!r}, {error}") from None
    return tuple(made)


def _alternative(kind: Any, value: Any, name: str) -> Any:
    """Of a key that may have values of several types, the one that fits the value."""
    for one in alternatives(kind):
        if get_origin(one) is tuple and isinstance(value, list | tuple):
            return one
        if get_origin(one) is Literal and isinstance(value, str):
            return one
        if one in (int, float) and type(value) in (int, one):
            return one
    raise UserError(f"{name} = {value!r} has the wrong type: {type_name(kind)} is expected, not {type(value).__name__}")


def _text(value: str, name: str) -> str:
    """The value, unless it came from bytes of the command line that are not UTF-8, which TOML cannot hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name} = {value!r} holds bytes that are not UTF-8: rename what it names") from None
    return value


def type_name(kind: Any) -> str:
    """The type of a key, in words."""
    if len(alternatives(kind)) > 1:
        return " or ".join(map(type_name, alternatives(kind)))
    if get_origin(kind) is tuple:
        return f"list of {type_name(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return "str"
    return str(kind.__name__) if kind in (int, float, bool, str) else "table"


def _plain(value: Any, name: str) -> Any:
    """A value of a free table, if JSON and TOML can both represent it."""
    if isinstance(value, Mapping):
        return {_text(key, name): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if not isinstance(value, bool | int | float | str):
        raise UserError(f"{name} = {value} has the wrong type: a number, string, list or table is expected, not a date")
    return _convert(type(value), value, name)


def dump(config: Config) -> str:
    """Complete TOML, defaults included; `from_dict(parse(dump(c)))` equals c."""
    lines = _lines(config)
    for entry in entries(type(config)):
        value = getattr(config, entry.field)
        if is_dataclass(value):
            lines += ["", f"[{entry.field}]", *_lines(value)]
        elif section_of(entry.kind) is not None:
            for one in value:
                lines += ["", f"[[{entry.field}]]", *_lines(one)]
                own = [f.name for f in fields(one) if is_dataclass(getattr(one, f.name))]
                for name in own:
                    lines += ["", f"[{entry.field}.{name}]", *_lines(getattr(one, name))]
    return "\n".join(lines) + "\n"


def _lines(section: Any) -> list[str]:
    """The keys of a section, without those that are sections or lists of them."""
    kinds = {entry.field: entry.kind for entry in entries(type(section))}
    return [
        f"{key} = {toml(value)}"
        for key, value in asdict(section).items()
        if not is_dataclass(getattr(section, key)) and section_of(kinds[key]) is None
    ]


def flat(config: Config) -> dict[str, str]:
    """All keys with their values as TOML, such as {"outer.updates": "100"}; a mixture as one value, if there is one."""
    tree = {key: value for key, value in asdict(config).items() if value != ()}
    sections = {name: value for name, value in tree.items() if is_dataclass(getattr(config, name))}
    root = {name: toml(value) for name, value in tree.items() if name not in sections}
    return root | {f"{name}.{key}": toml(value) for name, keys in sections.items() for key, value in keys.items()}


def toml(value: Any) -> str:
    """A value as TOML, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {toml(v)}" for k, v in value.items()) + "}"
    return repr(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)
