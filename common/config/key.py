"""What a configuration key is: its type with a `Key`, which holds its description, its cost and its bounds, and the check."""

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from common.errors import UserError


class Key(NamedTuple):
    """Annotates the type of a key. Bounds hold for a number, or for each number of a list."""

    what: str  # one sentence
    cost: str = ""  # what a larger value, or a value other than the default, costs
    low: float | None = None  # least value
    above: float | None = None  # limit that is excluded
    high: float | None = None
    below: float | None = None
    why: str = ""  # reason for the bounds
    form: str = ""  # of a text: what it may be

    def allows(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )

    def bounds(self) -> str:
        """Such as "at least 1"; "" if there are none."""
        if self.low is not None and self.high is not None:
            return f"{self.low} .. {self.high}"
        limits = {"at least": self.low, "more than": self.above, "at most": self.high, "less than": self.below}
        return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)


class Entry(NamedTuple):
    """A key of a section."""

    name: str  # with its section: "outer.updates"
    field: str
    kind: Any  # its type, without the annotation
    key: Key

    @property
    def several(self) -> bool:
        """Whether values may be of several types, such as a number or one of the choices."""
        return len(alternatives(self.kind)) > 1

    def choices(self) -> tuple[str, ...]:
        """Of a key that has a fixed set of texts; () for the others."""
        return tuple(choice for kind in alternatives(self.kind) for choice in _literals(kind))

    def bounds(self) -> str:
        """Such as "must be at least 1"; "" if there are none."""
        each = "each " if any(get_origin(kind) is tuple for kind in alternatives(self.kind)) else ""
        return self.key.bounds() and f"{each}must be {self.key.bounds()}"


class Section:
    """Base of the frozen dataclasses of the configuration. Each field is `Annotated[type, Key(...)]`."""

    NAME: ClassVar[str]

    def __post_init__(self) -> None:
        check(self)


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The types of a key that may have values of several types; of the others, the type."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def section_of(kind: Any) -> type[Section] | None:
    """Of a key that is a list of tables, such as the mixture, the section that each of them is; None for the others."""
    each = get_args(kind)[0] if get_origin(kind) is tuple else None
    return each if isinstance(each, type) and issubclass(each, Section) else None


def _literals(kind: Any) -> tuple[str, ...]:
    each = get_args(kind)[0] if get_origin(kind) is tuple else kind
    return get_args(each) if get_origin(each) is Literal else ()


def entries(cls: Any) -> tuple[Entry, ...]:
    """The keys of a section class, in order. A section of the whole configuration is a key without a description."""
    return _entries(cls)


@cache
def _entries(cls: Any) -> tuple[Entry, ...]:
    prefix = f"{cls.NAME}." if cls.NAME else ""
    hints = get_type_hints(cls, include_extras=True)
    return tuple(_annotated(prefix, field.name, hints[field.name]) for field in fields(cls))


def _annotated(prefix: str, name: str, hint: Any) -> Entry:
    kind, key = get_args(hint) if get_origin(hint) is Annotated else (hint, Key(""))
    return Entry(prefix + name, name, kind, key)


def check(section: Section) -> None:
    """Raises UserError for a value that is not one of the choices or is out of bounds."""
    for entry in entries(type(section)):
        value, choices = getattr(section, entry.field), entry.choices()
        for part in _parts(value):
            if choices and part not in choices and (isinstance(part, str) or not entry.several):
                number = " or a number" if entry.several else ""
                raise UserError(f"{entry.name} = {part!r} is not a choice: use one of {', '.join(choices)}{number}")
            if isinstance(part, int | float) and not entry.key.allows(part):
                shown = list(value) if isinstance(value, tuple) else value
                why = f" ({entry.key.why})" if entry.key.why else ""
                raise UserError(f"{entry.name} = {shown}: {entry.bounds()}{why}")


def _parts(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, tuple) else (value,)


def require(holds: bool, what: str) -> None:
    """Raises UserError(what) unless the rule holds."""
    if not holds:
        raise UserError(what)
