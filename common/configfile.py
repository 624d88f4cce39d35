"""Configuration files: TOML to `Config` and back, presets by name, and overrides `section.key=value`."""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from common.config import Config
from common.config.key import Section, alternatives, entries
from common.errors import UserError

_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?")  # as other languages spell a number: .5, 1., 1.e-3


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
    return from_dict(merge(_read(source), overrides))


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
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name} is not valid TOML: {error}") from None


def merge(tree: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `tree` with each `section.key=value` applied.

    A value is TOML. Where the type of its key leaves no doubt, other spellings are accepted: text without quotes, lists
    without brackets, True, .5 and 1.
    """
    merged: dict[str, Any] = deepcopy(dict(tree))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise UserError(f"--set {override!r} has no value: write section.key=value, such as outer.updates=100")
        *parents, key = path.strip().split(".")
        table = merged
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise UserError(f"--set {override!r}: {parent} is a value, not a section")
        table[key] = _value(text.strip(), _kind(Config, (*parents, key)))
    return merged


def _kind(cls: Any, path: tuple[str, ...]) -> Any:
    """The type of a key; None for an unknown one and for an entry of a free table."""
    kind = {entry.field: entry.kind for entry in entries(cls)}.get(path[0])
    if len(path) == 1 or not (isinstance(kind, type) and issubclass(kind, Section)):
        return kind if len(path) == 1 else None
    return _kind(kind, path[1:])


def _value(text: str, kind: Any) -> Any:
    """The text of an override as a value of a key of type `kind`. What does not fit the type is left to `_convert`."""
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    if kind is str or get_origin(kind) is Literal:
        return value if isinstance(value, str | list | dict) else text
    if get_origin(kind) is tuple and not isinstance(value, list):
        return [_value(item.strip(), get_args(kind)[0]) for item in text.rstrip(",").split(",")] if text else []
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind is float and isinstance(value, str) and _DECIMAL.fullmatch(value):
        return float(value)
    return value


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Raises UserError for an unknown key, a value of the wrong type, or an impossible value."""
    config: Config = _build(Config, tree, "")
    return config


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
    if type(value) is int and abs(value) >= 2**63:
        raise UserError(f"{name} = {value}: a number of at most 64 bits is expected")
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
        each = get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise UserError(f"{name} = {value!r} has the wrong type: a list of {type_name(each)} is expected")
        return tuple(_convert(each, item, name) for item in value)
    if not isinstance(value, Mapping):
        raise UserError(f"{name} = {value!r} has the wrong type: a table is expected")
    return {_text(key, name): _plain(item, f"{name}.{key}") for key, item in value.items()}


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
    tree = asdict(config)
    lines = [f"{key} = {toml(value)}" for key, value in tree.items() if not is_dataclass(getattr(config, key))]
    for section in (f.name for f in fields(config) if is_dataclass(getattr(config, f.name))):
        lines += ["", f"[{section}]", *(f"{key} = {toml(value)}" for key, value in tree[section].items())]
    return "\n".join(lines) + "\n"


def flat(config: Config) -> dict[str, str]:
    """All keys with their values as TOML, such as {"outer.updates": "100"}."""
    tree = asdict(config)
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
