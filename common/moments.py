"""Moments of a set of vectors: count, mean and sum of squared deviations, the mergeable statistics of an estimator.

Chan, Golub and LeVeque (1983): merging in any grouping gives the same numbers up to rounding (about 1e-15 relative),
and the same bits if it is done in the same order. NumPy only, so that the learner never waits for a compiler.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Statistics of `count` observations of a vector."""

    count: int  # type: ignore[assignment]  # shadows tuple.count, which is not used
    mean: np.ndarray  # [P] float64
    m2: np.ndarray  # [P] float64, sum of squared deviations from the mean


def empty(size: int) -> Moments:
    """Moments of no observation of a vector of `size` coordinates."""
    return Moments(0, np.zeros(size), np.zeros(size))


def of(rows: np.ndarray) -> Moments:
    """Moments of the rows of `rows` [n, P]. A non-finite entry makes its own coordinate non-finite, and no other."""
    rows = np.asarray(rows, np.float64)
    if len(rows) == 0:
        return empty(rows.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):
        mean = rows.mean(axis=0)
        return Moments(len(rows), mean, ((rows - mean) ** 2).sum(axis=0))


def combine(a: Moments, b: Moments) -> Moments:
    """Moments of the union of two disjoint sets of observations."""
    if a.count == 0:
        return b
    if b.count == 0:
        return a
    count = a.count + b.count
    with np.errstate(invalid="ignore", over="ignore"):
        step = b.mean - a.mean
        mean = a.mean + step * (b.count / count)
        return Moments(count, mean, a.m2 + b.m2 + step * step * (a.count * b.count / count))


def combine_all(parts: Iterable[Moments], size: int) -> Moments:
    """Folds `combine` over the parts in order, with the same bits, in place. `size` is P, needed if there are no parts."""
    count, mean, m2, step, scratch = 0, np.zeros(size), np.zeros(size), np.empty(size), np.empty(size)
    with np.errstate(invalid="ignore", over="ignore"):
        for part in parts:
            if part.count == 0:
                continue
            before, count = count, count + part.count
            if before == 0:
                mean[:], m2[:] = part.mean, part.m2
            else:
                np.subtract(part.mean, mean, out=step)
                mean += np.multiply(step, part.count / count, out=scratch)
                m2 += part.m2
                m2 += np.multiply(np.multiply(step, step, out=step), before * part.count / count, out=step)
    return Moments(count, mean, m2)


def pooled(groups: Iterable[Moments], size: int) -> Moments:
    """All observations, with the squared deviations of each from the mean of its own group.

    Its count is one more than the degrees of freedom, the sum of the groups' count - 1: `variance` of it is that within
    the groups, whatever their means. Of one group it is that group, bit for bit.
    """
    filled = [group for group in groups if group.count]
    if len(filled) <= 1:
        return filled[0] if filled else empty(size)
    with np.errstate(invalid="ignore", over="ignore"):
        deviations = np.sum([group.m2 for group in filled], axis=0)
    freedom = sum(group.count - 1 for group in filled)
    return Moments(freedom + 1, combine_all(filled, size).mean, deviations)


def variance(moments: Moments, floor: float = 0.0) -> np.ndarray:
    """Sample variance [P], divisor count - 1, not below `floor`.

    Infinite where it is unknown: everywhere with fewer than two observations, and at non-finite coordinates.
    """
    if moments.count < 2:
        return np.full(moments.mean.shape, np.inf)
    known = np.isfinite(moments.mean) & np.isfinite(moments.m2)
    return np.where(known, np.maximum(moments.m2 / (moments.count - 1), floor), np.inf)


def quantiles(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles [levels] over all `values` [P], of which those that are not finite count as infinity.

    They are `numpy.quantile`'s, and infinite where one of the two values that it would interpolate is.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(levels.shape, np.inf)
    linear = np.quantile(np.where(finite, values, values[finite].max()), levels)
    above = np.quantile(np.where(finite, values, np.inf), levels, method="higher")
    return np.where(np.isfinite(above), linear, np.inf)
