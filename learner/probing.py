"""When rp is worth its backward pass: a policy from past batches alone, and the variance that weighs sparse probes.

While the merge has given rp a negligible weight for some time, workers compute it for a share `probe_rate` of their
samples only. Its variance is then a running estimate over past probes: a batch's weight never uses its own probes,
because a few observations of a heavy tail look calm just when they are not. Costs four vectors of state. Not for
runs where rp matters: with `estimator.probe_rate = 1` nothing here is used.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.messages import GradientSample
from common.moments import Moments, variance

NEGLIGIBLE = 1e-3  # mean weight of rp below which its backward pass is not worth computing
WINDOW = 8  # batches that must agree before workers skip; one that does not agree ends it
MEMORY = 64.0  # observations after which the running estimate has forgotten 1 - 1/e
_BAD = 0.05  # decayed count of non-finite observations above which a coordinate's variance is infinite


class Probing(NamedTuple):
    """What past batches say about rp."""

    seen: np.ndarray  # [P] float64, decayed count of finite observations
    mean: np.ndarray  # [P] float64
    m2: np.ndarray  # [P] float64, decayed
    bad: np.ndarray  # [P] float64, decayed count of non-finite observations
    recent: tuple[float, ...]  # mean weight that rp would have had, latest last, at most WINDOW


def start(size: int) -> Probing:
    return Probing(np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size), ())


def is_sparse(samples: Sequence[GradientSample]) -> bool:
    """Whether some sample of the batch came without rp."""
    return any(s.rp.count < s.es.count for s in samples)


def past_variance(state: Probing) -> np.ndarray:
    """Per-pair variance of rp [P] from past probes; infinite where it is unknown or was not finite."""
    known = (state.seen >= 2) & (state.bad < _BAD)
    return np.where(known, state.m2 / np.maximum(state.seen - 1, 1), np.inf)


def rate(state: Probing, probe_rate: float) -> float:
    """Share of samples that compute rp now."""
    agreed = len(state.recent) == WINDOW and max(state.recent) < NEGLIGIBLE
    return probe_rate if agreed else 1.0


def observe(state: Probing, rp: Moments, es: Moments, floor: float) -> Probing:
    """The state after a batch with these moments (of `merge`, which bounds rp); call it after the batch was merged."""
    state = _absorb(state, rp)
    if es.count < 2:
        return state
    var_rp, var_es = np.maximum(past_variance(state), floor), variance(es, floor)
    weight = np.where(np.isinf(var_rp), 0.0, var_es / (np.where(np.isinf(var_rp), 1.0, var_rp) + var_es))
    return state._replace(recent=(*state.recent, float(weight.mean()))[-WINDOW:])


def _absorb(state: Probing, rp: Moments) -> Probing:
    """Chan's merge per coordinate, after the past has faded by the number of new observations."""
    if rp.count == 0:
        return state
    keep = np.exp(-rp.count / MEMORY)
    finite = np.isfinite(rp.mean)
    old, new = state.seen * keep, np.where(finite, float(rp.count), 0.0)
    count = old + new
    share = new / np.maximum(count, 1e-300)
    step = np.where(finite, rp.mean - state.mean, 0.0)
    mean = state.mean + step * share
    m2 = state.m2 * keep + np.where(finite, rp.m2, 0.0) + step * step * old * share
    bad = state.bad * keep + np.where(finite, 0.0, float(rp.count))
    return Probing(count, mean, m2, bad, state.recent)
