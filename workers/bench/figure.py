"""Benchmark figures: a name, a description, a target, and the function that measures it.

A figure is a ratio of quantities measured alternately in one process, so that disturbances of the machine affect both.
Computing time is processor time of one thread, which excludes the time of other processes.
"""

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from workers.evaluation import timing

cpu = time.process_time


class Measured(NamedTuple):
    """One value per round, and additional results."""

    values: list[float]
    details: dict[str, Any] = {}  # noqa: RUF012 (the default of a NamedTuple field; never mutated)


class Figure(NamedTuple):
    """One line of `outertrain bench`."""

    name: str
    what: str
    unit: str
    where: str  # "module:function", rounds -> Measured; imported when it is measured
    rounds: int
    target: float | None = None  # None: no target
    at_most: bool = False  # the target is an upper limit
    pinned: bool = True  # to one core; False where its processes choose their cores
    quick: bool = False  # measured by --quick too


class Outcome(NamedTuple):
    """What was measured of a figure. The fields are the keys of its JSON."""

    figure: str
    what: str
    value: float | None  # median over rounds; None: the measurement failed, as details["failure"] says
    spread: tuple[float, float] | None = None  # quartiles
    unit: str = ""
    target: float | None = None
    sense: str = "at least"  # of the target
    holds: bool | None = None  # None: no target, or not measured
    details: dict[str, Any] = {}  # noqa: RUF012 (as above)

    @classmethod
    def failed(cls, figure: Figure, why: str) -> Self:
        return cls(figure.name, figure.what, value=None, details={"failure": why})


def measure(figure: Figure, rounds: int | None = None) -> Outcome:
    """The outcome of a figure, measured in this process. `rounds` replaces the figure's own number."""
    module, _, function = figure.where.partition(":")
    return outcome(figure, getattr(importlib.import_module(module), function)(rounds or figure.rounds))


def outcome(figure: Figure, measured: Measured) -> Outcome:
    """The median over rounds, the quartiles, and whether the median meets the target."""
    low, value, high = np.percentile(measured.values, [25, 50, 75]).tolist()
    holds = None
    if figure.target is not None:
        holds = value <= figure.target if figure.at_most else value >= figure.target
    return Outcome(
        figure=figure.name,
        what=figure.what,
        value=value,
        spread=(low, high),
        unit=figure.unit,
        target=figure.target,
        sense="at most" if figure.at_most else "at least",
        holds=holds,
        details=measured.details,
    )


def ratio(numerator: Callable[[], Any], denominator: Callable[[], Any], rounds: int) -> Measured:
    """Processor seconds of one callable over those of the other, both called once per round."""
    seconds = timing.interleaved({"numerator": numerator, "denominator": denominator}, rounds, cpu)
    return Measured(divided(seconds["numerator"], seconds["denominator"]), {"seconds": medians(seconds)})


def divided(numerators: list[float], denominators: list[float], factor: float = 1.0) -> list[float]:
    return [factor * n / d for n, d in zip(numerators, denominators)]


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: float(np.median(spent)) for name, spent in seconds.items()}
