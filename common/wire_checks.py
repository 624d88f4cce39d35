"""Strict checks of the fields of a message: the exact type, the exact range, or `Malformed`."""

import re
from typing import Any, TypeVar

MAX_PAIRS = 4096  # of one message; enough for an aggregate of many workers' samples
T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,64}")
_LARGEST = 2**63 - 1
_LONGEST = 1e15  # of a reported fact: sums of many counts remain exact integers in float64


class Malformed(ValueError):
    """The bytes are not a message of this schema; the text names the first fault."""


def check(holds: bool, what: str) -> None:
    """Raises Malformed with the text `what` unless the condition `holds`."""
    if not holds:
        raise Malformed(what)


def name(value: Any, what: str) -> str:
    """A short identifier."""
    if type(value) is str and _NAME.fullmatch(value) is not None:
        return value
    raise Malformed(f"{what} is not a name")


def integer(value: Any, what: str, low: int = 0) -> int:
    """An integer of at least `low`, and not a boolean."""
    if type(value) is int and low <= value <= _LARGEST:
        return value
    raise Malformed(f"{what} is not an integer of {low} or more")


def integers(values: Any, what: str, low: int) -> tuple[int, ...]:
    """A non-empty list of such integers."""
    if type(values) is list and len(values) >= 1:
        return tuple([integer(value, what, low) for value in values])
    raise Malformed(f"{what} is not a list of integers")


def floats(values: Any, what: str) -> tuple[float, ...]:
    """A list of floats, finite or not."""
    if type(values) is list and all([type(x) is float for x in values]):
        return tuple(values)
    raise Malformed(f"{what} is not a list of floats")


def each(values: tuple[T, ...], pairs: int, what: str) -> tuple[T, ...]:
    """`values`, one for each pair."""
    if len(values) == pairs:
        return values
    raise Malformed(f"{what} has {len(values)} entries for {pairs} pairs")


def duration(value: Any, what: str) -> float:
    """A float from 0 to 1e15: seconds, or a count."""
    if type(value) is float and 0 <= value <= _LONGEST:
        return value
    raise Malformed(f"{what} is not a duration")
