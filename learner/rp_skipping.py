"""Skipping rp: when its backward pass is not worth computing, and the variance that weighs sparse observations of it.

While the merge has given rp a negligible weight for some time, workers compute it for a fraction `probe_rate` of their
samples only, the probes. Its variance is then a running estimate over past probes (`learner.running`): the weight of a
batch never depends on its own probes, because a few observations of a heavy tail look calm exactly when they are not.
Costs four vectors [P] of state, with a mixture of families of tasks for each of them. Decides from past batches alone. Do not use it where rp matters: with
`estimator.probe_rate = 1` nothing here runs.

With `estimator.allocate` the bound is where the variance of the merge, times the CPU time of its pairs, is least. With a
weight w of rp, the variance of the merge is 1 - w of that of es, and a pair takes 1 + c times the time of one without
rp, where c is `estimator.rp_cost`. Rp pays while (1 - w)(1 + c) < 1, which is w > c / (1 + c). In a batch that has rp
in all samples, w is the weight that the merge has given it: where rp explodes in some batches only, the others keep its worth
up. No clock takes part, so a run in one process repeats bit for bit.

With `curriculum.hold` the window's ramp takes a step in each update in which rp is worth it, and goes back by BACK steps in
each other one; rp is skipped only where the window cannot become shorter.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.config import Config
from common.inverse_variance import inverse_variance
from common.messages import GradientSample
from common.moments import Moments, variance
from learner import running

NEGLIGIBLE = 1e-3  # mean weight of rp below which its backward pass is not worth computing
WINDOW = 8  # batches that must agree before workers skip; one that disagrees ends it
BACK = 4  # steps of the ramp: rp explodes in at most about a fifth of the updates
PATIENCE = 4  # batches before the first decision of `estimator.allocate`, which averages over WINDOW


class Ramp(NamedTuple):
    """The position of the curriculum, in the place of the version."""

    at: int  # steps, 0 .. steps
    steps: int  # of the whole ramp, `curriculum.updates`


class SkippingState(NamedTuple):
    """What past batches say about rp."""

    older: Mapping[str, Moments]  # of probes, as in `running.Running`
    newer: Mapping[str, Moments]
    recent: tuple[float, ...]  # of batches, latest last, at most WINDOW: mean weight that rp would have had, or `worth`
    least: float | None = None  # of `least_worth`; None: `estimator.allocate` is off
    ramp: Ramp | None = None  # None: it follows the version


def start(size: int, families: Iterable[str] = ("",)) -> SkippingState:
    """The state before the first batch; `size` is P."""
    return SkippingState(*running.start(size, families), ())


def of(config: Config, size: int) -> SkippingState | None:
    """The state before the first batch of a run; None where each sample computes rp, or none does."""
    estimator, curriculum = config.estimator, config.curriculum
    if estimator.use != "merged" or estimator.probe_rate == 1:
        return None
    least = least_worth(estimator.rp_cost) if estimator.allocate else None
    ramp = Ramp(0, curriculum.updates) if curriculum.hold else None
    return start(size, [member.name for member in config.members])._replace(least=least, ramp=ramp)


def is_sparse(samples: Sequence[GradientSample]) -> bool:
    """Whether some sample of the batch came without rp."""
    return any(s.rp.count < s.es.count for s in samples)


def past_variance(state: SkippingState) -> np.ndarray:
    """Variance of rp of one pair [P] over past probes; infinite where unknown, or where one was not finite."""
    return variance(running.moments(running.Running(state.older, state.newer)))


def rate(state: SkippingState, probe_rate: float) -> float:
    """Fraction of samples that compute rp now; `probe_rate` while rp is not worth it."""
    if state.least is None:
        skips = len(state.recent) == WINDOW and max(state.recent) < NEGLIGIBLE
    else:
        shortest = state.ramp is None or state.ramp.at == 0
        skips = shortest and len(state.recent) >= PATIENCE and worth(state) < state.least
    return probe_rate if skips else 1.0


def worth(state: SkippingState) -> float:
    """Fraction of the variance of es that rp removes, mean over the last batches; before the first one 1."""
    return sum(state.recent) / len(state.recent) if state.recent else 1.0


def least_worth(rp_cost: float) -> float:
    """Fraction of the variance of es that rp has to remove to be worth its CPU time."""
    return rp_cost / (1 + rp_cost)


def observe(
    state: SkippingState, rp: Mapping[str, Moments], es: Moments, floor: float, weight: np.ndarray | None = None
) -> SkippingState:
    """The state after a batch with these moments.

    Args:
      state: the state that the batch was merged with.
      rp: of the batch by family, from `merge`, which bounds it.
      es: of the batch, within the families.
      floor: of a sample variance.
      weight: [P] of rp in the merge, if all samples had it; None: what its past variance would give.
    """
    state = state._replace(**running.observe(running.Running(state.older, state.newer), rp)._asdict())
    if es.count < 2:
        return state
    var_es = variance(es, floor)
    expected = inverse_variance(np.maximum(past_variance(state), floor), var_es)
    if state.least is None:
        return state._replace(recent=(*state.recent, float(expected.mean()))[-WINDOW:])
    found = float(np.average(expected if weight is None else weight, weights=var_es))
    recent = (*state.recent, found)[-WINDOW:]
    return state._replace(recent=recent, ramp=state.ramp and moved(state.ramp, up=found >= state.least))


def moved(ramp: Ramp, *, up: bool) -> Ramp:
    """The ramp after an update; `up`: rp was worth its CPU time."""
    return ramp._replace(at=min(ramp.at + 1, ramp.steps) if up else max(ramp.at - BACK, 0))
