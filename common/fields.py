"""Strict checks of what came over the wire, field by field: the exact type, the exact range, or `Malformed`."""

import math
import re
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,64}")
_LARGEST = 2**63 - 1


class Malformed(ValueError):
    """The bytes are not a record of this schema; the text says where they stop being one."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Malformed(what)


def name(value: Any, what: str) -> str:
    check(type(value) is str and _NAME.fullmatch(value) is not None, f"{what} is not a name")
    return value


def integer(value: Any, what: str, low: int = 0) -> int:
    check(type(value) is int and low <= value <= _LARGEST, f"{what} is not a whole number of {low} or more")
    return value


def integers(values: Any, what: str, low: int) -> tuple[int, ...]:
    check(type(values) is list and len(values) >= 1, f"{what} is not a list of numbers")
    return tuple(integer(value, what, low) for value in values)


def floats(values: Any, what: str) -> tuple[float, ...]:
    check(type(values) is list and all(type(x) is float for x in values), f"{what} is not a list of floats")
    return tuple(values)


def each(values: tuple, pairs: int, what: str) -> tuple:
    check(len(values) == pairs, f"{what} has {len(values)} entries for {pairs} pairs")
    return values


def duration(value: Any, what: str) -> float:
    check(type(value) is float and math.isfinite(value) and value >= 0, f"{what} is not a duration")
    return value
