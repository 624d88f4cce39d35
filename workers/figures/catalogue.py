"""The figures by name, and what can be done with each: its items, their rows, its picture and its sentence."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import UserError
from workers.figures.figure import Record, Train, Verdict

NAMES = ("fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "probing")
SCALES = ("mini", "paper")
Rows = Sequence[Mapping[str, Any]]


def module(name: str) -> Any:
    if name not in NAMES:
        raise UserError(f"there is no figure {name!r}: use one of {', '.join(NAMES)}, or all")
    return importlib.import_module(f"workers.figures.{name}")


def needs(name: str) -> tuple[str, ...]:
    """Figures whose rows this one is made from."""
    return module(name).NEEDS


def order(names: Sequence[str]) -> list[str]:
    """The figures and what they need, each after what it needs."""
    ordered: list[str] = []
    for name in names:
        ordered += [n for n in (*order(needs(name)), name) if n not in ordered]
    return ordered


def items(name: str, scale: str, rows: Rows) -> list[Record]:
    """The items known so far, given its own rows and those of the figures it needs."""
    if scale not in SCALES:
        raise UserError(f"there is no scale {scale!r}: use one of {', '.join(SCALES)}")
    return module(name).items(scale, rows)


def perform(record: Mapping[str, Any], train: Train) -> Record:
    return module(record["figure"]).perform(record, train)


def claim(name: str) -> str:
    return module(name).CLAIM


def verdict(name: str, rows: Rows) -> Verdict:
    return module(name).verdict(rows)


def draw(name: str, rows: Rows) -> Any:
    return module(name).draw(rows)
