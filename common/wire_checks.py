"""Strict checks of what came over the wire, field by field: the exact type, the exact range, or `Malformed`."""

import re
from typing import Any

MAX_PAIRS = 4096  # of one message: an aggregate of many workers' samples still fits
_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,64}")
_LARGEST = 2**63 - 1
_LONGEST = 1e15  # of what a sample reports; sums of many stay exact whole numbers


class Malformed(ValueError):
    """The bytes are not a record of this schema; the text says where they stop being one."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Malformed(what)


def name(value: Any, what: str) -> str:
    if type(value) is str and _NAME.fullmatch(value) is not None:
        return value
    raise Malformed(f"{what} is not a name")


def integer(value: Any, what: str, low: int = 0) -> int:
    if type(value) is int and low <= value <= _LARGEST:
        return value
    raise Malformed(f"{what} is not a whole number of {low} or more")


def integers(values: Any, what: str, low: int) -> tuple[int, ...]:
    if type(values) is list and len(values) >= 1:
        return tuple([integer(value, what, low) for value in values])
    raise Malformed(f"{what} is not a list of numbers")


def floats(values: Any, what: str) -> tuple[float, ...]:
    if type(values) is list and all([type(x) is float for x in values]):
        return tuple(values)
    raise Malformed(f"{what} is not a list of floats")


def each(values: tuple, pairs: int, what: str) -> tuple:
    if len(values) == pairs:
        return values
    raise Malformed(f"{what} has {len(values)} entries for {pairs} pairs")


def duration(value: Any, what: str) -> float:
    if type(value) is float and 0 <= value <= _LONGEST:
        return value
    raise Malformed(f"{what} is not a duration")
