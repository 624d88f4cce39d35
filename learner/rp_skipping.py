"""When rp is worth its backward pass: a policy from past batches alone, and the variance that weighs sparse probes.

While the merge has given rp a negligible weight for some time, workers compute it for a share `probe_rate` of their
samples only. Its variance is then a running estimate over past probes: a batch's weight never uses its own probes,
because a few observations of a heavy tail look calm just when they are not. The estimate forgets by blocks: fading by a
factor would keep a variance of 1e14 in mind for thousands of probes after the gradients have become calm, and rp would
not come back. Costs four vectors of state. Not for runs where rp matters: with `estimator.probe_rate = 1` nothing here
is used.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.messages import GradientSample
from common.moments import Moments, combine, empty, variance
from learner.merge import inverse_variance

NEGLIGIBLE = 1e-3  # mean weight of rp below which its backward pass is not worth computing
WINDOW = 8  # batches that must agree before workers skip; one that does not agree ends it
BLOCK = 32  # probes; the estimate is over the last block that is complete and the one that is filled


class Probing(NamedTuple):
    """What past batches say about rp."""

    older: Moments  # of the last BLOCK probes, or a few more, that are complete; empty at first
    newer: Moments  # of those since then
    recent: tuple[float, ...]  # mean weight that rp would have had, latest last, at most WINDOW


def start(size: int) -> Probing:
    return Probing(empty(size), empty(size), ())


def is_sparse(samples: Sequence[GradientSample]) -> bool:
    """Whether some sample of the batch came without rp."""
    return any(s.rp.count < s.es.count for s in samples)


def past_variance(state: Probing) -> np.ndarray:
    """Per-pair variance of rp [P] from past probes; infinite where it is unknown or one was not finite."""
    return variance(combine(state.older, state.newer))


def rate(state: Probing, probe_rate: float) -> float:
    """Share of samples that compute rp now."""
    agreed = len(state.recent) == WINDOW and max(state.recent) < NEGLIGIBLE
    return probe_rate if agreed else 1.0


def observe(state: Probing, rp: Moments, es: Moments, floor: float) -> Probing:
    """The state after a batch with these moments (of `merge`, which bounds rp); call it after the batch was merged."""
    newer = combine(state.newer, rp)
    full = newer.count >= BLOCK
    state = Probing(newer, empty(len(rp.mean)), state.recent) if full else state._replace(newer=newer)
    if es.count < 2:
        return state
    weight = inverse_variance(np.maximum(past_variance(state), floor), variance(es, floor))
    return state._replace(recent=(*state.recent, float(weight.mean()))[-WINDOW:])
