"""Errors of gradient estimates against a truth that is known in two independent halves."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workers.figures.statistics import Interval, mean, paired

INFINITE = Interval(np.inf, np.inf, np.inf)


def errors(rows: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of the independent estimates [n, P]: unbiased for the squared bias, and for the total variance."""
    with np.errstate(invalid="ignore", over="ignore"):
        variances = ((rows - rows.mean(axis=0)) ** 2).sum(axis=1) * len(rows) / (len(rows) - 1)
        squares = ((rows - one) * (rows - other)).sum(axis=1)
        biases = squares - variances
    exploded = ~(np.isfinite(biases) & np.isfinite(variances))
    return np.where(exploded, np.inf, biases), np.where(exploded, np.inf, variances)


class Record(NamedTuple):
    """What is stored of an estimator; infinity as text."""

    biases: Sequence[float | str]  # of single estimates, from `errors`
    variances: Sequence[float | str]
    seconds: float  # CPU seconds of one


class Cell(NamedTuple):
    """An estimator at one theta with one window."""

    bias: Interval  # squared
    variance: float  # of a batch
    errors: np.ndarray  # [n] unbiased for the mean squared error of a batch
    per_second: float  # variance of a batch of one CPU second
    resolved: bool  # the truth's standard error is at most a third of the estimator's error

    @property
    def error(self) -> Interval:
        """Mean squared, of a batch."""
        return mean(self.errors) if np.isfinite(self.errors).all() else INFINITE


def cell(record: Record, seconds: float, noise: float) -> Cell:
    """The cell of an estimator.

    Args:
      seconds: CPU seconds of a batch.
      noise: squared standard error of the mean of the truth's halves.
    """
    biases, variances = (np.array([float(x) for x in part]) for part in record[:2])
    if not (np.isfinite(biases).all() and np.isfinite(variances).all()):
        return Cell(INFINITE, np.inf, np.full(len(biases), np.inf), np.inf, True)
    fraction, variance = record.seconds / seconds, float(variances.mean())
    errors = biases + fraction * variances
    return Cell(
        mean(biases), fraction * variance, errors, fraction * variance * seconds, bool(9 * noise <= errors.mean())
    )


def difference(one: Cell, other: Cell) -> Interval:
    """Mean squared error of `one` minus that of `other`, paired by the problems that both have seen."""
    count = min(len(one.errors), len(other.errors))
    first, second = (c.errors[: len(c.errors) // count * count].reshape(count, -1).mean(axis=1) for c in (one, other))
    return paired(first, second) if np.isfinite(first - second).all() else Interval(np.nan, -np.inf, np.inf)


def written(one: Cell) -> str:
    """The root mean squared error; b: what of it is bias, where that is significant."""
    if np.isinf(one.error.value):
        return "infinite"
    if not one.resolved or one.error.value <= 0:
        return "below resolution"
    bias = f" (b {np.sqrt(one.bias.value):.2g})" if one.bias.low > 0 else ""
    return f"{np.sqrt(one.error.value):.2g}{bias}"
