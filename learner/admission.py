"""Whether a sample is taken: a pure judgement on its run, its numbers, its parameters' place in history, and its name.

Staleness is a difference of versions, never of clocks. Its mean is about workers / batch (Little's law); a limit
rejects long windows and slow workers first, which biases what is learned, so there is none by default.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from common.config import Config
from common.messages import GradientSample, Verdict
from common.moments import Moments
from learner.deduplication import Ledger

_LARGEST_NOISE = 8.0  # standard deviations; an honest draw beyond it has probability 1e-15
_SLACK = 1 + 1e-4  # float32 rounding of the workers


class Limits(NamedTuple):
    """What a sample of this run can look like."""

    digest: str
    size: int  # P
    objective: str
    pairs: int  # S; a multiple of it is an aggregate
    batch_samples: int
    inner_steps: int
    clamp: float
    es_bound: float  # of |es|; infinite without noise
    needs_rp: bool
    has_es: bool
    max_staleness: int  # versions; -1: no limit


class Standing(NamedTuple):
    """Where the learner stands in its run's history."""

    epoch: int
    version: int
    lineage: Mapping[int, int]  # earlier epochs that this one descends from -> the last version of each that counts
    closed: Verdict | None = None  # what good samples get instead of being accepted


def limits(config: Config, digest: str, size: int) -> Limits:
    estimator = config.estimator
    noisy = estimator.sigma > 0
    return Limits(
        digest=digest,
        size=size,
        objective=estimator.objective,
        pairs=estimator.pairs,
        batch_samples=config.outer.batch_samples,
        inner_steps=config.task.inner_steps,
        clamp=estimator.clamp * _SLACK,
        es_bound=_LARGEST_NOISE * estimator.clamp / (2 * estimator.sigma) * _SLACK if noisy else np.inf,
        needs_rp=estimator.use == "rp",
        has_es=noisy,
        max_staleness=config.outer.max_staleness,
    )


def admit(sample: GradientSample, bounds: Limits, standing: Standing, ledger: Ledger) -> Verdict:
    """The verdict on a well-formed sample. Nothing is changed; the caller notes what it takes."""
    if sample.digest != bounds.digest:
        return Verdict.wrong_run
    if not _fits(sample, bounds):
        return Verdict.malformed
    if not _finite(sample):
        return Verdict.non_finite
    if not _possible(sample, bounds):
        return Verdict.malformed
    if sample.epoch == standing.epoch and sample.version > standing.version:
        return Verdict.malformed
    if staleness(sample, standing) is None:
        return Verdict.wrong_epoch
    if ledger.has(sample.worker, sample.sequence):
        return Verdict.duplicate
    return _late(sample, bounds, standing, ledger)


def staleness(sample: GradientSample, standing: Standing) -> int | None:
    """Versions since the sample's parameters; None when they are not part of the learner's history."""
    newest = standing.version if sample.epoch == standing.epoch else standing.lineage.get(sample.epoch, -1)
    return standing.version - sample.version if sample.version <= newest else None


def samples_in(sample: GradientSample, pairs: int) -> int:
    """How many workers' samples it stands for: 1, or more in an aggregate."""
    return len(sample.windows) // pairs


def _late(sample: GradientSample, bounds: Limits, standing: Standing, ledger: Ledger) -> Verdict:
    behind = standing.version - sample.version
    if 0 <= bounds.max_staleness < behind or ledger.forgotten(sample.worker, sample.version):
        return Verdict.stale
    return standing.closed or Verdict.accepted


def _fits(sample: GradientSample, bounds: Limits) -> bool:
    """Whether its counts and lengths are those of this run."""
    pairs = len(sample.windows)
    steps = zip(sample.starts, sample.windows, strict=True)
    return (
        len(sample.es.mean) == bounds.size
        and pairs % bounds.pairs == 0
        and samples_in(sample, bounds.pairs) <= bounds.batch_samples
        and sample.objective == bounds.objective
        and sample.es.count == (pairs if bounds.has_es else 0)
        and (sample.rp.count == pairs or (bounds.has_es and not bounds.needs_rp))
        and all(start + window <= bounds.inner_steps for start, window in steps)
    )


def _finite(sample: GradientSample) -> bool:
    """rp may be non-finite where es is there to fall back on."""
    sure = sample.es if sample.es.count else sample.rp
    losses = all(map(math.isfinite, sample.loss_plus + sample.loss_minus))
    return losses and bool(np.isfinite(sure.mean).all() and np.isfinite(sure.m2).all())


def _possible(sample: GradientSample, bounds: Limits) -> bool:
    """Whether clamped losses and Gaussian noise can give these numbers."""
    if max(*sample.loss_plus, *sample.loss_minus) > bounds.clamp:
        return False
    if (sample.rp.m2 < 0).any():
        return False
    return not sample.es.count or _within(sample.es, bounds.es_bound)


def _within(es: Moments, bound: float) -> bool:
    """Means within the bound, and squared deviations that `count` values within it can have."""
    means = -bound <= es.mean.min() and es.mean.max() <= bound
    return bool(means and es.m2.min() >= 0 and es.m2.max() <= es.count * bound * bound)
