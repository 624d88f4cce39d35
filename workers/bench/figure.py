"""What every figure is: a name, what it compares, its target, and how to measure it.

A figure is a ratio of quantities that were measured in turn, in one process, so what disturbs the machine disturbs both.
Computing time is processor time (one thread): what other processes take away from it is not counted.
"""

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from workers.evaluation import timing

cpu = time.process_time


class Measured(NamedTuple):
    """One value per round, and whatever else is worth knowing."""

    values: list[float]
    details: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default; nobody changes it)


class Figure(NamedTuple):
    """One line of `outertrain bench`."""

    name: str
    what: str
    unit: str
    where: str  # "module:function", rounds -> Measured; imported when it is measured
    rounds: int
    target: float | None = None  # None: reported only
    at_most: bool = False  # the target is an upper limit
    pinned: bool = True  # to one core; False where its processes choose their own


def measure(figure: Figure, rounds: int | None = None) -> dict[str, Any]:
    """The outcome of a figure, measured in this process."""
    module, _, function = figure.where.partition(":")
    return outcome(figure, getattr(importlib.import_module(module), function)(rounds or figure.rounds))


def outcome(figure: Figure, measured: Measured) -> dict[str, Any]:
    """A line for people and scripts: the median over rounds, the quartiles as its spread, whether the target holds."""
    low, value, high = np.percentile(measured.values, [25, 50, 75]).tolist()
    holds = None
    if figure.target is not None:
        holds = value <= figure.target if figure.at_most else value >= figure.target
    return {
        "figure": figure.name,
        "what": figure.what,
        "value": value,
        "spread": [low, high],
        "unit": figure.unit,
        "target": figure.target,
        "sense": "at most" if figure.at_most else "at least",
        "holds": holds,
        "details": measured.details,
    }


def ratio(numerator: Callable[[], Any], denominator: Callable[[], Any], rounds: int) -> Measured:
    """Processor seconds of the one over those of the other, both run once in each round."""
    seconds = timing.interleaved({"numerator": numerator, "denominator": denominator}, rounds, cpu)
    return Measured(divided(seconds["numerator"], seconds["denominator"]), {"seconds": medians(seconds)})


def divided(numerators: list[float], denominators: list[float], factor: float = 1.0) -> list[float]:
    return [factor * n / d for n, d in zip(numerators, denominators)]


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: float(np.median(spent)) for name, spent in seconds.items()}
