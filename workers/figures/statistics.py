"""Uncertainty of what a figure claims: intervals of 95 %; those drawn by bootstrap have a fixed seed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 95.0  # per cent


class Interval(NamedTuple):
    """A statistic and the interval that covers it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def bootstrap(samples: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean, seed: int = 0) -> Interval:
    """Percentile interval of `statistic(samples [n, ...])`, the n samples drawn again with replacement."""
    samples = np.asarray(samples, dtype=float)
    random = np.random.default_rng(seed)
    draws = random.integers(len(samples), size=(RESAMPLES, len(samples)))
    values = [statistic(samples[draw]) for draw in draws]
    low, high = np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Interval(float(statistic(samples)), float(low), float(high))


def difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> Interval:
    """Mean of `one` minus mean of `other`, two independent sets of samples."""
    random = np.random.default_rng(seed)
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    first = one[random.integers(len(one), size=(RESAMPLES, len(one)))].mean(axis=1)
    second = other[random.integers(len(other), size=(RESAMPLES, len(other)))].mean(axis=1)
    low, high = np.percentile(first - second, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Interval(float(one.mean() - other.mean()), float(low), float(high))


def paired(one: np.ndarray, other: np.ndarray) -> Interval:
    """Mean of `one - other`, pair by pair, with Student's interval: for few pairs, where a bootstrap is too narrow."""
    from scipy.stats import t

    gaps = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)
    half = t.ppf(0.5 + LEVEL / 200, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    return Interval(float(gaps.mean()), float(gaps.mean() - half), float(gaps.mean() + half))


def sign_test(wins: int, of: int) -> float:
    """Two-sided p-value of `wins` out of `of` fair coin flips."""
    from math import comb

    tail = sum(comb(of, k) for k in range(max(wins, of - wins), of + 1)) / 2**of
    return min(1.0, 2 * tail)
