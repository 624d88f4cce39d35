"""Equation 1 of the paper: two gradient estimators merged by inverse variance. Pure NumPy.

    weight_rp = var_es / (var_rp + var_es),  merged = weight_rp * rp + (1 - weight_rp) * es

The variances are those of the means: sample variances with a floor of 1e-8, each divided by its estimator's own count.
An estimator whose variance is unknown (fewer than two observations) has weight 0. When neither variance is known, the
merge equals es: a clamped loss bounds es, and nothing bounds rp. An rp that exploded (not finite, or beyond 1e15, where
it says nothing about a gradient that clamp / sigma bounds) is an observation of infinite variance: its coordinates fall
back to es for this batch. Under `estimator.use = "rp"` the gradient is the mean of rp alone, however large: workers have
dropped or clipped what is not finite, and without any observation it is zero.

In a run with a mixture of families of tasks, what the families' means differ by is no noise of an estimator. The variances
are then those within the families: their sums of squared deviations, added, over their degrees of freedom, added.
With `estimator.merge = "family"` each family is merged by itself, with a weight of its own, and the gradient is their mean
by the number of pairs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from common.config import EstimatorConfig
from common.inverse_variance import FLOOR, blend, inverse_variance, totals
from common.moments import Moments, combine_all, pooled, variance

EXPLODED = 1e15  # |rp| from which it counts as infinite; a variance 20 orders above that of es is still below


class Rule(NamedTuple):
    """How to merge."""

    estimator: EstimatorConfig  # `use`, `merge`, `cross_fit` and `rp_variance`
    segments: np.ndarray  # [P] int, which tensor each coordinate belongs to


class Estimates(Protocol):
    """The two estimators of a sample, such as a `GradientSample`."""

    @property
    def rp(self) -> Moments: ...

    @property
    def es(self) -> Moments: ...

    @property
    def family(self) -> str: ...


class Both(NamedTuple):
    """Both estimators over the same pairs."""

    rp: Moments
    es: Moments


class Batch(NamedTuple):
    """The estimators over a batch, or over half of one."""

    whole: Both
    within: Both  # with the deviations from the means of the families, `common.moments.pooled`
    families: Mapping[str, Both]


class Merged(NamedTuple):
    """The gradient of one batch, and the quantities that it was computed from."""

    gradient: np.ndarray  # [P] float64, finite
    weight_rp: np.ndarray  # [P]
    rp: Moments  # of the whole batch
    es: Moments
    within: Both  # as in `Batch`: what the variances are taken from
    families: Mapping[str, Both]  # "" where the run has no mixture
    fallback: int  # coordinates where rp exploded and es replaces it


def merge(
    samples: Sequence[Estimates], rule: Rule, past_rp: Mapping[str, Moments] | None = None, past: Both | None = None
) -> Merged:
    """The gradient of a batch: equation 1 of the paper.

    Args:
      samples: the batch, sorted by name; equal batches in equal order give equal bits.
      rule: how to merge.
      past_rp: moments of rp over earlier batches by family. Their variance within the families replaces the batch's own
        where only some samples carry rp (`learner.rp_skipping`), and where it is larger under `estimator.rp_variance =
        "recent"`: a few observations of a heavy tail look calm exactly when they are not.
      past: moments of both estimators over earlier batches, within the families. Replaces both variances. Weights that
        do not depend on the batch leave a merge of unbiased estimators unbiased; like those of `cross_fit` they do
        not see an outlier.

    Example:
      Two samples, one coordinate. The mean of rp is 2 with sample variance 2, the mean of es is 5 with variance 18, so
      rp has the weight 18 / (2 + 18).

      >>> from collections import namedtuple
      >>> import numpy as np
      >>> from common import moments
      >>> from common.config import EstimatorConfig
      >>> from learner.merge import Rule, merge
      >>> Sample = namedtuple("Sample", "rp es family", defaults=[""])
      >>> samples = [Sample(moments.of(np.array([[rp]])), moments.of(np.array([[es]]))) for rp, es in [(1, 2), (3, 8)]]
      >>> merged = merge(samples, Rule(EstimatorConfig(), np.array([0])))
      >>> merged.weight_rp.round(12).tolist(), merged.gradient.round(12).tolist()
      ([0.9], [2.3])
    """
    estimator, size = rule.estimator, len(rule.segments)
    pairs = [(s.family, Both(s.rp if estimator.use == "rp" else _trusted(s.rp), s.es)) for s in samples]
    batch = _combined(pairs, size)
    rp, es = batch.whole
    with np.errstate(over="ignore", invalid="ignore"):
        if estimator.use == "merged" and estimator.cross_fit:
            gradient, weight = _cross_fitted(pairs, rule, past_rp)
        elif estimator.use == "merged" and estimator.merge == "family":
            gradient, weight = _each_family(batch, rule, past_rp)
        else:
            weight = _weights(batch.whole, past or batch.within, rule, None if past else past_rp)
            gradient = blend(weight, rp.mean, es.mean)
    return Merged(gradient, weight, rp, es, batch.within, batch.families, int(np.isnan(rp.mean).sum()))


def weight_of(family: Both, rule: Rule) -> np.ndarray:
    """Weight of rp [P] that the pairs of one family alone would give it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _weights(family, family, rule, None)


def exploded(rp: Moments) -> np.ndarray:
    """[P] bool: where some observation is beyond what a gradient can be."""
    with np.errstate(invalid="ignore"):
        within: np.ndarray = (np.abs(rp.mean) <= EXPLODED) & (rp.m2 <= rp.count * EXPLODED**2)
    return ~within


def calm(rp: Moments) -> bool:
    """Whether `exploded` is false everywhere; NaN is never within bounds."""
    within = rp.mean.min() >= -EXPLODED and rp.mean.max() <= EXPLODED
    return bool(within and (rp.count < 2 or rp.m2.max() <= rp.count * EXPLODED**2))


def _trusted(rp: Moments) -> Moments:
    """`rp` with NaN where it exploded, which propagates through every sum."""
    if calm(rp):
        return rp
    bad = exploded(rp)
    return Moments(rp.count, np.where(bad, np.nan, rp.mean), np.where(bad, np.nan, rp.m2))


def _combined(pairs: Sequence[tuple[str, Both]], size: int) -> Batch:
    families: dict[str, Both] = {}
    for name in sorted({name for name, _ in pairs}):
        own = [both for family, both in pairs if family == name]
        families[name] = Both(combine_all((b.rp for b in own), size), combine_all((b.es for b in own), size))
    rp, es = [family.rp for family in families.values()], [family.es for family in families.values()]
    whole = Both(combine_all(rp, size), combine_all(es, size))
    return Batch(whole, Both(pooled(rp, size), pooled(es, size)), families)


def _each_family(batch: Batch, rule: Rule, past_rp: Mapping[str, Moments] | None) -> tuple[np.ndarray, np.ndarray]:
    """Each family by the weight of its own variances; both results are means over the families, by their pairs."""
    gradient, weight = np.zeros(len(rule.segments)), np.zeros(len(rule.segments))
    pairs = sum(family.es.count for family in batch.families.values())
    for name, own in batch.families.items():
        weights = _weights(own, own, rule, None if past_rp is None else {name: past_rp[name]})
        weight += own.es.count / pairs * weights
        gradient += own.es.count / pairs * blend(weights, own.rp.mean, own.es.mean)
    return gradient, weight


def _cross_fitted(
    samples: Sequence[tuple[str, Both]], rule: Rule, past_rp: Mapping[str, Moments] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Each half of the batch, every other sample, weighted by the variances of the other half.

    The weights are then independent of the means that they weigh, which removes a bias towards the calmer half; but
    they do not see an outlier of their own half: do not use this for long windows without clipping.
    """
    size = len(rule.segments)
    halves = [_combined(half, size) for half in (samples[0::2], samples[1::2])]
    gradient, weight = np.zeros(size), np.zeros(size)
    pairs = sum(max(half.whole.rp.count, half.whole.es.count) for half in halves)
    for own, other in (halves, halves[::-1]):
        fraction = max(own.whole.rp.count, own.whole.es.count) / pairs
        weights = _weights(own.whole, other.within, rule, past_rp)
        weight += fraction * weights
        gradient += fraction * blend(weights, own.whole.rp.mean, own.whole.es.mean)
    return gradient, weight


def _of_one_rp(means: Both, spread: Both, rule: Rule, past_rp: Mapping[str, Moments] | None) -> np.ndarray:
    """Variance of rp of one pair [P]; arguments as of `_weights`."""
    own = variance(spread.rp, FLOOR)
    if past_rp is None:
        return own
    past = pooled(list(past_rp.values()), len(own))
    known, dense = variance(past, FLOOR), means.rp.count == means.es.count
    if rule.estimator.rp_variance == "recent" and dense:
        return np.maximum(own, known) if past.count >= 2 else own
    return known


def _weights(means: Both, spread: Both, rule: Rule, past_rp: Mapping[str, Moments] | None) -> np.ndarray:
    """Weight of rp [P] for `means`, with the sample variances of `spread`; for rp those of `past_rp`, as `merge` says."""
    rp, es = means
    if rule.estimator.use == "rp":
        return np.ones(len(rp.mean))
    if rp.count == 0 or es.count == 0 or rule.estimator.use == "es":
        return np.where(np.isfinite(rp.mean), float(es.count == 0 and rp.count > 0), 0.0)
    per_pair_rp = _of_one_rp(means, spread, rule, past_rp)
    per_pair_rp = np.where(np.isfinite(rp.mean), per_pair_rp, np.inf)
    of_rp = totals(per_pair_rp, rule.segments, rule.estimator.merge) / rp.count
    of_es = totals(variance(spread.es, FLOOR), rule.segments, rule.estimator.merge) / es.count
    return inverse_variance(of_rp, of_es)
