"""Uncertainty of what a figure claims: 95 % intervals and a sign test, by scipy.stats. Random ones have a fixed seed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from common import streams
from common.moments import quantiles

RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A statistic and the interval that covers it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def bootstrap(samples: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean) -> Interval:
    """Percentile interval of `statistic(samples [n, ...])`, which may be infinite, with the n samples resampled."""
    samples = np.asarray(samples, dtype=float)
    value = float(statistic(samples))
    if len(samples) < 2:
        return Interval(value, value, value)
    draws = streams.generator(streams.RESAMPLING).integers(len(samples), size=(RESAMPLES, len(samples)))
    resampled = np.array([statistic(samples[draw]) for draw in draws])
    low, high = quantiles(resampled, np.array([1 - LEVEL, 1 + LEVEL]) / 2)
    return Interval(value, float(low), float(high))


def difference(one: np.ndarray, other: np.ndarray) -> Interval:
    """Percentile interval of the mean of `one` minus the mean of `other`, two independent sets of samples."""
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    return _percentile([one, other], float(one.mean() - other.mean()), lambda a, b: float(a.mean() - b.mean()))


def _percentile(data: Sequence[np.ndarray], value: float, statistic: Callable[..., float]) -> Interval:
    """Percentile bootstrap of `statistic(*data)`; every array of `data` is resampled by itself."""
    done = stats.bootstrap(
        data,
        statistic,
        n_resamples=RESAMPLES,
        vectorized=False,
        confidence_level=LEVEL,
        method="percentile",
        rng=streams.generator(streams.RESAMPLING),
    )
    return Interval(value, float(done.confidence_interval.low), float(done.confidence_interval.high))


def paired(one: np.ndarray, other: np.ndarray) -> Interval:
    """Mean of `one - other` with Student's interval of the paired test: of few pairs a bootstrap is too narrow."""
    test = stats.ttest_rel(one, other)
    interval = test.confidence_interval(LEVEL)
    return Interval(float(np.mean(np.subtract(one, other))), float(interval.low), float(interval.high))


def sign_test(wins: int, of: int) -> float:
    """Two-sided p-value of `wins` out of `of` tosses of a fair coin."""
    return float(stats.binomtest(wins, of).pvalue)
