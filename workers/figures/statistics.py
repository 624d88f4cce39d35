"""Uncertainty of what a figure claims: 95 % intervals and tests, by scipy.stats. Random ones have a fixed seed."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy import stats

from common import streams
from common.moments import quantiles

RESAMPLES = 2000
FEWEST = 5  # samples of a mean that gets an interval: of fewer, one that covers it has no content
LEVEL = 0.95


Decision = bool | None  # whether a claim holds; None: the samples do not decide


class Interval(NamedTuple):
    """A statistic and the interval that covers it; unbounded where there are too few samples for one."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return f"{self.value:.3g} (no interval: fewer than {FEWEST} samples)"
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"

    def above(self, bound: float) -> Decision:
        """Whether the statistic is above `bound`: undecided while the interval covers it."""
        return True if self.low > bound else False if self.high < bound else None

    def below(self, bound: float) -> Decision:
        """Whether the statistic is below `bound`: undecided while the interval covers it."""
        return True if self.high < bound else False if self.low > bound else None

    def within(self, margin: float) -> Decision:
        """Whether its size is below `margin`: so if the whole interval is, not so if all of it is beyond."""
        if -margin < self.low and self.high < margin:
            return True
        return False if self.low > margin or self.high < -margin else None


def bootstrap(samples: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean) -> Interval:
    """Percentile interval of `statistic(samples [n, ...])`, which may be infinite, with the n samples resampled."""
    samples = np.asarray(samples, dtype=float)
    value = float(statistic(samples))
    if len(samples) < FEWEST:
        return Interval(value, -math.inf, math.inf)
    draws = streams.generator(streams.RESAMPLING).integers(len(samples), size=(RESAMPLES, len(samples)))
    resampled = np.array([statistic(samples[draw]) for draw in draws])
    low, high = quantiles(resampled, np.array([1 - LEVEL, 1 + LEVEL]) / 2)
    return Interval(value, float(low), float(high))


def mean(samples: np.ndarray) -> Interval:
    """The mean with Student's interval: of a few samples, a percentile bootstrap covers 75 to 83 % instead of 95."""
    samples = np.asarray(samples, dtype=float)
    value = float(samples.mean())
    if len(samples) < FEWEST:
        return Interval(value, -math.inf, math.inf)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(samples) - 1) * stats.sem(samples))
    return Interval(value, value - half, value + half)


def geometric(ratios: np.ndarray) -> Interval:
    """The geometric mean of positive samples with Student's interval of their logarithms."""
    of_logs = mean(np.log(ratios))
    low = math.exp(of_logs.low) if of_logs.low > -math.inf else -math.inf
    return Interval(math.exp(of_logs.value), low, math.exp(of_logs.high))


def difference(one: np.ndarray, other: np.ndarray) -> Interval:
    """Mean of `one` minus mean of `other`, two independent sets of samples, with Welch's interval."""
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    value = float(one.mean() - other.mean())
    if min(len(one), len(other)) < FEWEST:
        return Interval(value, -math.inf, math.inf)
    if not one.std() and not other.std():
        return Interval(value, value, value)
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(LEVEL)
    return Interval(value, float(interval.low), float(interval.high))


def paired(one: np.ndarray, other: np.ndarray) -> Interval:
    """Mean of `one - other` with Student's interval of the paired test."""
    return mean(np.subtract(one, other))


def steadier(one: np.ndarray, other: np.ndarray) -> Decision:
    """Whether `one` varies less than `other`, of the same seeds: the test of Pitman (1939) and Morgan (1939).

    The variances of two paired samples differ if and only if their sum and their difference are correlated. Seeds that
    only one of the two has are left out.
    """
    one, other = one[: len(other)], other[: len(one)]
    total, gap = np.add(one, other), np.subtract(one, other)
    if len(total) < FEWEST or not total.std() or not gap.std():
        return None
    test = stats.pearsonr(total, gap)
    return bool(test.statistic < 0) if test.pvalue < 1 - LEVEL else None


def every(decisions: Iterable[Decision]) -> Decision:
    """Whether all parts of a claim hold: not if one does not, and undecided if one is."""
    known = set(decisions)
    return False if False in known else None if None in known else True


def word(decision: Decision) -> str:
    """The decision as a sentence has it."""
    return {True: "holds", False: "does not hold", None: "undecided"}[decision]


def sign_test(wins: int, of: int) -> float:
    """Two-sided p-value of `wins` out of `of` tosses of a fair coin."""
    return float(stats.binomtest(wins, of).pvalue)
