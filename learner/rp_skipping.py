"""Skipping rp: when its backward pass is not worth computing, and the variance that weighs sparse observations of it.

While the merge has given rp a negligible weight for some time, workers compute it for a fraction `probe_rate` of their
samples only, the probes. Its variance is then a running estimate over past probes (`learner.running`): the weight of a
batch never depends on its own probes, because a few observations of a heavy tail look calm exactly when they are not.
Costs four vectors [P] of state, with a mixture of families of tasks for each of them. Decides from past batches alone. Do not use it where rp matters: with
`estimator.probe_rate = 1` no sample skips rp. Under `estimator.rp_variance = "recent"` the running estimate also weighs
batches that have rp in all samples, where it is larger than their own variance.

With `estimator.allocate` the bound is where the variance of the merge, times the CPU time of its pairs, is least. With a
weight w of rp, the variance of the merge is 1 - w of that of es, and a pair takes 1 + c times the time of one without
rp, where c is `estimator.rp_cost`. Rp pays while (1 - w)(1 + c) < 1, which is w > c / (1 + c). In a batch that has rp
in all samples, w is the weight that the merge has given it: where rp explodes in some batches only, the others keep its worth
up. No clock takes part, so a run in one process repeats bit for bit.

With `curriculum.hold` the window's ramp takes a step in each update in which rp is worth it, and goes back by BACK steps in
each other one; rp is skipped only where the window cannot become shorter. In a mixture each family has a ramp of its own,
which moves with the batches that have samples of it, by what rp is worth in this family alone: the first one to explode does
not keep the windows of the others short. The ramps go back by as many times more steps as there are families, so that rp
explodes in some family in about a fifth of the updates.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.config import Config
from common.inverse_variance import inverse_variance
from common.messages import GradientSample
from common.moments import Moments, pooled, variance
from learner import running

NEGLIGIBLE = 1e-3  # mean weight of rp below which its backward pass is not worth computing
WINDOW = 8  # batches that must agree before workers skip; one that disagrees ends it
BACK = 4  # steps of the ramp: rp explodes in at most about a fifth of the updates
PATIENCE = 4  # batches before the first decision of `estimator.allocate`, which averages over WINDOW


class Ramp(NamedTuple):
    """The position of the curriculum, in the place of the version."""

    at: Mapping[str, int]  # of each family of tasks: steps, 0 .. steps
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
    """The state before the first batch of a run; None where each sample computes rp, or none does, and no past counts."""
    estimator, curriculum = config.estimator, config.curriculum
    if estimator.use != "merged" or (estimator.probe_rate == 1 and estimator.rp_variance == "batch"):
        return None
    least = least_worth(estimator.rp_cost) if estimator.allocate else None
    families = [member.name for member in config.members]
    ramp = Ramp(dict.fromkeys(families, 0), curriculum.updates) if curriculum.hold else None
    return start(size, families)._replace(least=least, ramp=ramp)


def is_sparse(samples: Sequence[GradientSample]) -> bool:
    """Whether some sample of the batch came without rp."""
    return any(s.rp.count < s.es.count for s in samples)


def past(state: SkippingState) -> dict[str, Moments]:
    """Moments of rp over past probes, by family."""
    return running.by_family(running.Running(state.older, state.newer))


def past_variance(state: SkippingState) -> np.ndarray:
    """Variance of rp of one pair [P] over past probes; infinite where unknown, or where one was not finite."""
    return variance(running.moments(running.Running(state.older, state.newer)))


def rate(state: SkippingState, probe_rate: float) -> float:
    """Fraction of samples that compute rp now; `probe_rate` while rp is not worth it."""
    if state.least is None:
        skips = len(state.recent) == WINDOW and max(state.recent) < NEGLIGIBLE
    else:
        shortest = state.ramp is None or min(state.ramp.at.values()) == 0
        skips = shortest and len(state.recent) >= PATIENCE and worth(state) < state.least
    return probe_rate if skips else 1.0


def worth(state: SkippingState) -> float:
    """Fraction of the variance of es that rp removes, mean over the last batches; before the first one 1."""
    return sum(state.recent) / len(state.recent) if state.recent else 1.0


def least_worth(rp_cost: float) -> float:
    """Fraction of the variance of es that rp has to remove to be worth its CPU time."""
    return rp_cost / (1 + rp_cost)


def observe(
    state: SkippingState,
    rp: Mapping[str, Moments],
    es: Mapping[str, Moments],
    floor: float,
    weight: np.ndarray | None = None,
) -> SkippingState:
    """The state after a batch with these moments.

    Args:
      state: the state that the batch was merged with.
      rp: of the batch by family, from `merge`, which bounds it.
      es: of the batch by family.
      floor: of a sample variance.
      weight: [P] of rp in the merge, if all samples had it; None: what its past variance would give.
    """
    state = state._replace(**running.observe(running.Running(state.older, state.newer), rp)._asdict())
    within = pooled(list(es.values()), len(next(iter(es.values())).mean))
    if within.count < 2:
        return state
    var_es = variance(within, floor)
    expected = inverse_variance(np.maximum(past_variance(state), floor), var_es)
    least = state.least
    if least is None:
        return state._replace(recent=(*state.recent, float(expected.mean()))[-WINDOW:])
    found = float(np.average(expected if weight is None else weight, weights=var_es))
    state = state._replace(recent=(*state.recent, found)[-WINDOW:])
    if state.ramp is None:
        return state
    worths = {"": found} if "" in es else _worths(state, rp, es, floor, dense=weight is not None)
    return state._replace(ramp=moved(state.ramp, {name: worth >= least for name, worth in worths.items()}))


def _worths(
    state: SkippingState, rp: Mapping[str, Moments], es: Mapping[str, Moments], floor: float, *, dense: bool
) -> dict[str, float]:
    """What rp is worth in each family of the batch alone, by the sums of the variances over the coordinates."""
    observed = rp if dense else past(state)
    return {
        name: float(inverse_variance(variance(observed[name], floor).sum(), variance(own, floor).sum()))
        for name, own in es.items()
    }


def moved(ramp: Ramp, up: Mapping[str, bool]) -> Ramp:
    """The ramp after an update; `up`: of each family of the batch, whether rp was worth its CPU time."""
    back = BACK * len(ramp.at)
    after = {name: min(ramp.at[name] + 1, ramp.steps) if up[name] else max(ramp.at[name] - back, 0) for name in up}
    return ramp._replace(at={**ramp.at, **after})


def ramp_from_record(record: int | Sequence[int], fresh: Ramp) -> Ramp:
    """The recorded ramp, a position for each family; a number, in older checkpoints, is that of all families."""
    positions = [record] * len(fresh.at) if isinstance(record, int) else record
    return fresh._replace(at=dict(zip(fresh.at, positions, strict=True)))
