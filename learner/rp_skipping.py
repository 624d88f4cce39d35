"""Skipping rp: when its backward pass is not worth computing, and the variance that weighs sparse observations of it.

While the merge has given rp a negligible weight for some time, workers compute it for a fraction `probe_rate` of their
samples only, the probes. Its variance is then a running estimate over past probes (`learner.running`): the weight of a
batch never depends on its own probes, because a few observations of a heavy tail look calm exactly when they are not.
Costs four vectors [P] of state, with a mixture of families of tasks for each of them. Decides from past batches alone. Do not use it where rp matters: with
`estimator.probe_rate = 1` nothing here runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.inverse_variance import inverse_variance
from common.messages import GradientSample
from common.moments import Moments, variance
from learner import running

NEGLIGIBLE = 1e-3  # mean weight of rp below which its backward pass is not worth computing
WINDOW = 8  # batches that must agree before workers skip; one that disagrees ends it


class SkippingState(NamedTuple):
    """What past batches say about rp."""

    older: Mapping[str, Moments]  # of probes, as in `running.Running`
    newer: Mapping[str, Moments]
    recent: tuple[float, ...]  # mean weight that rp would have had, latest last, at most WINDOW


def start(size: int, families: Iterable[str] = ("",)) -> SkippingState:
    """The state before the first batch; `size` is P."""
    return SkippingState(*running.start(size, families), ())


def is_sparse(samples: Sequence[GradientSample]) -> bool:
    """Whether some sample of the batch came without rp."""
    return any(s.rp.count < s.es.count for s in samples)


def past_variance(state: SkippingState) -> np.ndarray:
    """Variance of rp of one pair [P] over past probes; infinite where unknown, or where one was not finite."""
    return variance(running.moments(running.Running(state.older, state.newer)))


def rate(state: SkippingState, probe_rate: float) -> float:
    """Fraction of samples that compute rp now."""
    agreed = len(state.recent) == WINDOW and max(state.recent) < NEGLIGIBLE
    return probe_rate if agreed else 1.0


def observe(state: SkippingState, rp: Mapping[str, Moments], es: Moments, floor: float) -> SkippingState:
    """The state after a batch with these moments.

    Args:
      state: the state that the batch was merged with.
      rp: of the batch by family, from `merge`, which bounds it.
      es: of the batch, within the families.
      floor: of a sample variance.
    """
    state = SkippingState(*running.observe(running.Running(state.older, state.newer), rp), state.recent)
    if es.count < 2:
        return state
    weight = inverse_variance(np.maximum(past_variance(state), floor), variance(es, floor))
    return state._replace(recent=(*state.recent, float(weight.mean()))[-WINDOW:])
