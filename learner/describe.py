"""Builds the record of an outer update from its batch, its merge and its step."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.messages import GradientSample
from common.moments import Moments, quantiles, variance
from common.update_record import (
    LEVELS,
    UNKNOWN,
    Allocation,
    FamilyRecord,
    Norms,
    Quantiles,
    Staleness,
    UpdateRecord,
    Weight,
    Windows,
)
from learner.merge import Both, Merged, Rule, calm, weight_of
from learner.outer_optimizer import Step, norm

_LARGEST = sys.float_info.max


class Stamp(NamedTuple):
    """Where in its run an update was made, and when."""

    epoch: int
    version: int  # after the update
    time: float  # unix seconds
    seconds: float  # since the learner started
    verdicts: Mapping[str, int]  # samples received since then, by verdict
    inner_steps_total: int = 0  # of all updates so far
    allocation: Allocation | None = None  # after the update


def describe(stamp: Stamp, samples: Sequence[GradientSample], rule: Rule, merged: Merged, step: Step) -> UpdateRecord:
    """The record of the update that made `stamp.version` of a batch.

    Args:
      samples: the batch; losses are means over its pairs, whoever sent them.
      rule: by which it was merged. Its `pairs` let an aggregate count as the samples that it stands for.
      merged: of the batch; variances are of one pair, quantiles over coordinates.
      step: of the outer optimizer.
    """
    estimator = rule.estimator
    plus, minus = (np.concatenate([getattr(s, name) for s in samples]) for name in ("loss_plus", "loss_minus"))
    windows = np.concatenate([s.windows for s in samples])
    staleness, pairs = np.array([(stamp.version - 1 - s.version, len(s.windows)) for s in samples]).T
    return UpdateRecord(
        **stamp._asdict(),
        loss=_bounded((plus.mean() + minus.mean()) / 2),
        loss_plus=_bounded(plus.mean()),
        loss_minus=_bounded(minus.mean()),
        samples=len(windows) // estimator.pairs,
        inner_steps=_count(s.facts.inner_steps for s in samples),
        windows=Windows(float(windows.mean()), int(windows.min()), int(windows.max())),
        staleness=Staleness(float(np.average(staleness, weights=pairs)), int(staleness.max())),
        diverged=_count(s.facts.diverged for s in samples),
        finished=_count(s.facts.finished for s in samples),
        workers_seen=len({s.worker for s in samples}),
        rp_nonfinite=sum(s.rp.count > 0 and not calm(s.rp) for s in samples),
        weight_rp=Weight(float(merged.weight_rp.mean()), _quantiles(merged.weight_rp)),
        var_rp=spread(merged.within.rp),
        var_es=spread(merged.within.es),
        rp_fallback=merged.fallback,
        rp_pairs=merged.rp.count,
        es_pairs=merged.es.count,
        norms=Norms(*map(_bounded, (step.gradient_norm, step.update_norm, norm(step.theta.astype(np.float64))))),
        clipped=step.clipped,
        refused=step.rejected,
        var_rp_nonfinite=_infinite(merged.within.rp),
        rp_dropped=len(windows) - merged.rp.count if estimator.use == "rp" else 0,
        rp_clipped=_count(s.facts.rp_clipped for s in samples),
        core_seconds=float(sum(s.seconds * len(s.windows) / estimator.pairs for s in samples)),
        cpu_seconds=float(sum(s.facts.cpu_seconds or 0.0 for s in samples)),
        families={
            name: _of_family([s for s in samples if s.family == name], rule, both)
            for name, both in merged.families.items()
            if name
        },
    )


def _of_family(samples: Sequence[GradientSample], rule: Rule, both: Both) -> FamilyRecord:
    losses = np.concatenate([(*s.loss_plus, *s.loss_minus) for s in samples])
    windows = np.concatenate([s.windows for s in samples])
    return FamilyRecord(
        samples=len(windows) // rule.estimator.pairs,
        loss=_bounded(losses.mean()),
        windows=float(windows.mean()),
        diverged=_count(s.facts.diverged for s in samples),
        weight_rp=float(weight_of(both, rule).mean()) if both.es.count else None,
        var_rp=spread(both.rp).q50,
        var_es=spread(both.es).q50,
    )


def _infinite(rp: Moments) -> float:
    """Fraction of coordinates whose variance is infinite, where it is known at all."""
    return float(np.isinf(variance(rp)).mean()) if rp.count >= 2 else 0.0


def spread(moments: Moments) -> Quantiles:
    """Of the variances of one pair; unknown with fewer than two observations."""
    return _quantiles(variance(moments)) if moments.count >= 2 else UNKNOWN


def _quantiles(values: np.ndarray) -> Quantiles:
    return Quantiles(*quantiles(values, np.array(LEVELS)).tolist())


def _count(values: Iterable[float | None]) -> int:
    return int(sum(value or 0.0 for value in values))


def _bounded(value: float) -> float:
    """JSON has no infinity: the largest number stands for it."""
    return float(np.clip(value, -_LARGEST, _LARGEST))
