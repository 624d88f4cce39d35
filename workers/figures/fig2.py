"""Figure 2: with more inner steps the outer loss becomes near-discontinuous (paper section 2.3).

Momentum, and the learning rate (appendix B), on (w - 4)(w - 3) w^2; an MLP under Adam at learning rates that differ by a
hundredth; slices through the outer loss of the learned optimizer. All are computed by the unroll of outer-training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common import streams
from common.optimizer import Family, hand_designed
from common.task import TaskFamily
from workers.figures import landscape
from workers.figures.fig5 import best_theta
from workers.figures.figure import (
    Job,
    Kind,
    Outcome,
    Results,
    Settings,
    Train,
    evaluator_of,
    of_kind,
    rounded,
)
from workers.figures.landscape import Grid, LandscapeJob, Plane, PlaneJob, Slice, SliceJob
from workers.figures.statistics import Decision, Interval, every, geometric
from workers.inner_step import InnerStep, OuterLoss, Problem
from workers.segment import forward_on_tape, zero_tape

CLAIM = "With more inner steps the outer loss gets near-discontinuous, for hand-designed and learned optimizers alike."
NEEDS = ("fig5",)


@dataclass(frozen=True, kw_only=True)
class ToyJob(Job, figure="fig2", kind="toy"):
    """SGD with momentum on two minima, at many values of one of its two parameters."""

    varied: str  # "momentum" or "learning rate"
    other: float  # value of the parameter that is not varied
    points: int
    lowest: float  # value
    highest: float
    steps: Sequence[int]
    drawn: int  # paths

    def values(self) -> np.ndarray:
        return np.linspace(self.lowest, self.highest, self.points)


@dataclass(frozen=True, kw_only=True)
class Toy(ToyJob):
    final: Sequence[Sequence[float]]  # [steps, points] loss
    slope: Sequence[Sequence[float]]  # [steps, points] absolute derivative of that loss by the varied parameter
    path: Sequence[Sequence[float]]  # [drawn, steps + 1] of w


@dataclass(frozen=True, kw_only=True)
class AdamJob(Job, figure="fig2", kind="adam"):
    """An MLP under Adam, at neighbouring learning rates."""

    problem: int
    low: float
    high: float
    rates: int
    steps: int
    problems: int


@dataclass(frozen=True, kw_only=True)
class Adam(AdamJob):
    spread: Sequence[float]  # [steps + 1] distance between the w of neighbouring rates, mean
    final: Sequence[float] | None = None  # [rates] loss after the last step
    first: Sequence[float] | None = None  # [rates] loss after the first step
    projection: Sequence[Any] | None = None  # [rates / 4, steps + 1, 2] of the paths; of one problem only


KINDS = (Kind(ToyJob, Toy), Kind(AdamJob, Adam), Kind(SliceJob, Slice), Kind(PlaneJob, Plane))
# The paper does not give the toy's constants: these show both minima.
TOY = ToyJob(
    label="momentum",
    varied="momentum",
    other=0.01,
    points=991,
    lowest=0,
    highest=0.99,
    steps=[5, 10, 20, 50, 100, 200],
    drawn=45,
)
TOY_RATE = replace(TOY, label="rate", varied="learning rate", other=0.9, lowest=0.01, highest=0.03)
# Adam's rates are the paper's; ten problems are for the uncertainty.
ADAM = AdamJob(label="", problem=0, low=0.1469, high=0.1484, rates=100, steps=40, problems=10)


class Scale(NamedTuple):
    mlp: Settings
    slice: Grid
    plane: Grid


MLP = ("task.family=mlp", "task.units=[16, 16]", "optimizer.family=mlp")
SCALES = {
    "mini": Scale(("mini", *MLP), Grid(81, 1.0, [5, 20, 200, 2000], 8), Grid(25, 1.0, [5, 40, 200])),
    "paper": Scale(("paper", *MLP), Grid(401, 1.0, [5, 10, 20, 100, 1000, 5000], 20), Grid(101, 1.0, [5, 100, 1000])),
}
VALID = ("estimator.objective=valid", "estimator.outer_batches=1")


def jobs(scale: str, results: Results) -> list[Job]:
    mlp, across, plane = SCALES[scale]
    listed: list[Job] = [TOY.named(), TOY_RATE.named()]
    listed += [replace(ADAM, label=f"adam{k}", settings=mlp, problem=k).named() for k in range(ADAM.problems)]
    theta = best_theta(results, "valid")
    if theta is None:
        return listed
    return [*listed, *landscape.slices((*mlp, *VALID), theta, across), *landscape.rows(mlp, theta, plane)]


def perform(job: Job, train: Train) -> Job:
    if isinstance(job, ToyJob):
        return sgd_on_two_minima(job)
    if isinstance(job, AdamJob):
        return neighbouring_rates(job)
    assert isinstance(job, LandscapeJob)
    return landscape.perform(job)


class Inner(NamedTuple):
    """An inner problem, and the optimizer that it is unrolled with."""

    task: TaskFamily
    family: Family
    problem: Problem
    key: jax.Array  # of the initial w


def unrolled(inner: Inner, thetas: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """Unrolls at many theta [K, P] from one w: the path of w [K, steps + 1, N], unclamped losses [K, steps]."""
    step = InnerStep(inner.task, inner.family, OuterLoss(clamp=float("inf")))
    state = jax.jit(step.start)(inner.problem, inner.key)
    tape = zero_tape(steps, state, [])
    unroll = jax.vmap(partial(forward_on_tape, step), in_axes=(0, None, None, None, None))
    _, losses, tape = jax.jit(unroll)(thetas, inner.problem, state, steps, tape)
    return tape.w, losses


def two_minima() -> TaskFamily:
    """(w - 4)(w - 3) w^2 from -1.2."""
    return TaskFamily(
        sample=lambda random, outer_split: {},
        init=lambda key: {"w": jnp.full(1, -1.2)},
        batch=lambda data, key, split: data,
        loss=lambda w, batch: jnp.sum((w["w"] - 4) * (w["w"] - 3) * w["w"] ** 2),
    )


def sgd_on_two_minima(job: ToyJob) -> Toy:
    values, constant = jnp.asarray(job.values()), jnp.full(job.points, job.other)
    thetas = jnp.stack([constant, values] if job.varied == "momentum" else [values, constant], axis=1)
    direction = jnp.array([0.0, 1.0] if job.varied == "momentum" else [1.0, 0.0])
    sgd = Family(lambda key: thetas[0], hand_designed.sgd, ((2,),))
    inner = Inner(two_minima(), sgd, Problem({}, jax.random.key(0)), jax.random.key(0))
    path, _ = unrolled(inner, thetas, max(job.steps))
    losses, slopes = jax.jvp(
        lambda at: unrolled(inner, at, max(job.steps))[1], (thetas,), (jnp.broadcast_to(direction, thetas.shape),)
    )
    at = np.array(job.steps) - 1
    drawn = np.linspace(0, job.points - 1, job.drawn).round().astype(int)
    return Toy.of(
        job,
        final=rounded(np.asarray(losses)[:, at].T),
        slope=rounded(np.abs(np.asarray(slopes))[:, at].T, 3),
        path=rounded(np.asarray(path)[drawn, :, 0], 4),
    )


def neighbouring_rates(job: AdamJob) -> Adam:
    """How far apart the parameters of an MLP get under neighbouring rates, and two random projections of their paths."""
    evaluator = evaluator_of(job.settings)
    random = streams.generator(streams.NEIGHBOURING_RATES, job.problem)
    problem = Problem(evaluator.data(job.problem, "outer_train"), jax.random.key(int(random.integers(2**32))))
    family = Family(lambda key: jnp.zeros(1), hand_designed.adam, ((1,),))
    rates = np.linspace(log(job.low), log(job.high), job.rates)
    inner = Inner(evaluator.task, family, problem, jax.random.key(job.problem))
    every, losses = unrolled(inner, jnp.asarray(rates, jnp.float32)[:, None], job.steps)
    path, final = np.asarray(every, np.float64), np.asarray(losses)
    spread = np.linalg.norm(np.diff(path, axis=0), axis=2).mean(axis=0)  # [steps + 1]
    projection = None
    if job.problem == 0:
        plane = random.normal(size=(path.shape[2], 2)) / np.sqrt(path.shape[2])
        projection = rounded(((path - path[:1, :1]) @ plane)[::4], 4)
    return Adam.of(
        job,
        spread=rounded(spread, 4),
        final=rounded(final[:, -1], 4),
        first=rounded(final[:, 0], 4),
        projection=projection,
    )


def roughness(losses: Sequence[float]) -> float:
    """The largest jump between neighbours as a fraction of the whole range: 1 / points for a line, 1 for a step."""
    values = np.asarray(losses, dtype=float)
    return float(np.abs(np.diff(values)).max() / max(np.ptp(values), 1e-12))


def outcome(results: Results) -> Outcome:
    parts, decisions = [], list[Decision]()
    for toy in toys(results):
        jumps = [roughness(final) for final in toy.final]
        gap = np.diff(toy.values())[0]
        steepest = [np.abs(np.diff(final)).max() / gap for final in (toy.final[0], toy.final[-1])]
        parts.append(
            f"toy: between values of the {toy.varied} {gap:.2g} apart the final loss jumps by at most "
            f"{jumps[0]:.1%} of its range after {toy.steps[0]} steps, by {jumps[-1]:.0%} after {toy.steps[-1]}, and its largest "
            f"slope grows from {steepest[0]:.2g} to {steepest[1]:.2g}"
        )
        decisions.append(bool(jumps[-1] > 10 * jumps[0]))
    growth = drift(results)
    parts.append(
        f"MLP under Adam: neighbouring learning rates are {growth} times farther apart after {ADAM.steps} steps than after 5"
    )
    decisions.append(growth.above(1))
    ratio = landscape.bending(results)
    if ratio is not None:
        steps = of_kind(results, Slice)[0].steps
        parts.append(
            f"learned optimizer: the curvature of a slice relative to its range is {ratio} times larger at T = {steps[-1]} than at T = {steps[0]}"
        )
        decisions.append(ratio.above(1))
    return Outcome(every(decisions), "; ".join(parts) + ".")


def toys(results: Results) -> list[Toy]:
    """Over the momentum, then over the learning rate."""
    return sorted(of_kind(results, Toy), key=lambda toy: toy.varied != TOY.varied)


def drift(results: Results) -> Interval:
    """How much farther apart neighbouring learning rates end than they were after 5 steps; geometric mean over problems."""
    spreads = np.array([adam.spread for adam in of_kind(results, Adam)])
    return geometric(spreads[:, -1] / spreads[:, 5])
