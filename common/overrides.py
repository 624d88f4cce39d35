"""Overrides `section.key=value` of a configuration that has been read, but not checked."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Literal, get_args, get_origin

from common.config import Config, TaskConfig
from common.config.key import Section, entries, section_of
from common.errors import UserError

_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?")  # as other languages spell a number: .5, 1., 1.e-3


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
        table: Any = merged
        for parent in parents:
            table = _named(table, parent) if isinstance(table, list) else table.setdefault(parent, {})
            if not isinstance(table, dict | list):
                raise UserError(f"--set {override!r}: {parent} is a value, not a section")
        if isinstance(table, list):
            raise UserError(f"--set {override!r}: name a family and its key, such as mixture.conv.weight=2")
        _check_effect(merged, override, parents, key)
        table[key] = _value(text.strip(), _kind(Config, (*parents, key)))
    return merged


def unreadable(error: ValueError | RecursionError) -> str:
    """What is wrong with a text that raised this error when it was parsed as TOML."""
    if isinstance(error, tomllib.TOMLDecodeError):
        return f"is not valid TOML: {error}"
    if isinstance(error, RecursionError):
        return "has too many lists or tables inside one another: write few levels"
    return "has a number of thousands of digits: write a number of at most 64 bits"


def _check_effect(tree: Mapping[str, Any], override: str, parents: list[str], key: str) -> None:
    """Raises UserError for a key of [task] or [dataset] that each family of the mixture sets itself."""
    mixture = tree.get("mixture")
    if parents not in (["task"], ["dataset"]) or not isinstance(mixture, list) or not mixture:
        return
    own = (one.get(parents[0]) if isinstance(one, Mapping) else None for one in mixture)
    if all(isinstance(section, Mapping) and key in section for section in own):
        section, label = parents[0], mixture_label(mixture[0])
        raise UserError(
            f"--set {override!r} has no effect: each family of the mixture sets {section}.{key} itself; write "
            f"mixture.{label}.{section}.{key}={override.partition('=')[2]} and the same for others"
        )


def _named(tables: list[Any], name: str) -> Any:
    """The family of a mixture with this name."""
    labels = [mixture_label(one) for one in tables]
    if name not in labels:
        raise UserError(f"the mixture has no family {name!r}: it has {', '.join(labels)}")
    return tables[labels.index(name)]


def mixture_label(tree: Any) -> str:
    """The name of a family of a mixture whose values have not been checked."""
    table = tree if isinstance(tree, Mapping) else {}
    task = table.get("task")
    family = task.get("family") if isinstance(task, Mapping) else None
    return str(table.get("name") or family or TaskConfig.family).replace(":", ".")


def _kind(cls: Any, path: tuple[str, ...]) -> Any:
    """The type of a key; None for an unknown one and for an entry of a free table."""
    kind = {entry.field: entry.kind for entry in entries(cls)}.get(path[0])
    if (each := section_of(kind)) is not None and len(path) > 2:
        return _kind(each, path[2:])
    if len(path) == 1 or not (isinstance(kind, type) and issubclass(kind, Section)):
        return kind if len(path) == 1 else None
    return _kind(kind, path[1:])


def _value(text: str, kind: Any) -> Any:
    """The text of an override as a value of a key of type `kind`. What does not fit the type is left to `_convert`."""
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    except (ValueError, RecursionError) as error:
        raise UserError(f"--set: the value {text[:20]}... {unreadable(error)}") from None
    if kind is str or get_origin(kind) is Literal:
        return value if isinstance(value, str | list | dict) else text
    if get_origin(kind) is tuple and not isinstance(value, list):
        text = value if isinstance(value, str) else text  # without the quotes, if it has any
        return [_value(item.strip(), get_args(kind)[0]) for item in text.rstrip(",").split(",")] if text else []
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind is float and isinstance(value, str) and _DECIMAL.fullmatch(value):
        return float(value)
    return value
