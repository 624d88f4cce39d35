"""Figure 3: short truncations are biased, and drive Adam's learning rate the wrong way (paper section 2.4).

Adam's rate is outer-learned on a two-layer network by plain truncated backpropagation (sigma = 0): the same total of
inner steps, in truncations of several lengths, from a start close to the best rate. At the start the gradient of each
truncation is shown over the inner problem, together with the gradient of the whole problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from workers.evaluation.jobs import UnrollJob
from workers.figures.figure import (
    Job,
    Kind,
    Outcome,
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    of_kind,
    rounded,
)
from workers.figures.statistics import Decision, Interval, bootstrap, every, geometric, mean, paired, word

CLAIM = "Short truncations are biased: they drive Adam's learning rate away from its best value, long ones towards it."
NEEDS = ()


@dataclass(frozen=True, kw_only=True)
class RatesJob(Job, figure="fig3", kind="rates"):
    """One whole problem at several rates of Adam."""

    problem: int
    rates: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Rates(RatesJob):
    losses: Sequence[float]  # [rates] mean over the steps


@dataclass(frozen=True, kw_only=True)
class GradientJob(Job, figure="fig3", kind="gradient"):
    """The gradient in the logarithm of the rate, truncation by truncation."""

    problem: int
    window: int
    rate: float


@dataclass(frozen=True, kw_only=True)
class Gradient(GradientJob):
    gradients: Sequence[float]  # [truncations]


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="fig3", kind="train"):
    """An outer-training of Adam's rate with one window."""

    window: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    steps: Sequence[int]  # [points] inner steps of all pairs
    rates: Sequence[float]  # [points] learned rate
    losses: Sequence[float]  # [points - 1] outer loss, mean between two points


KINDS = (Kind(RatesJob, Rates), Kind(GradientJob, Gradient), Kind(TrainingJob, Training))


class Scale(NamedTuple):
    base: Settings
    start: float  # the rate at the start: close to the best
    windows: list[int]
    total: int  # inner steps of each training
    batch: int
    outer: Settings
    seeds: int
    gradients: list[int]  # windows, apart from the whole problem
    problems: int
    rates: list[float]


NETWORK = ("task.family=mlp", "task.units=[32]", "optimizer.family=adam")
PLAIN = (
    "estimator.use=rp",
    "estimator.sigma=0",
    "estimator.merge=scalar",
    "curriculum.updates=0",
    "curriculum.jitter=0",
)
SCALES = {
    "mini": Scale(
        base=("mini", *NETWORK, *PLAIN, "task.inner_steps=1000", "optimizer.learning_rate=0.01"),
        start=0.01,  # as close to the best of 1,000 steps as the paper's .001 is to the best of 10,000
        windows=[10, 50, 200, 1000],
        total=40_000,
        batch=2,
        outer=("outer.learning_rate=0.05", "outer.clip=none"),
        seeds=3,
        gradients=[10, 50],
        problems=16,
        rates=[float(f"{r:.3g}") for r in np.geomspace(1e-4, 0.1, 13)],
    ),
    "paper": Scale(
        base=("paper", *NETWORK, *PLAIN, "task.inner_steps=10000", "optimizer.learning_rate=0.001"),
        start=0.001,
        windows=[10, 100, 1000, 10000],
        total=20_000_000,
        batch=4,
        outer=("outer.learning_rate=0.003", "outer.clip=none"),
        seeds=5,
        gradients=[10, 100, 1000],
        problems=64,
        rates=[float(f"{r:.3g}") for r in np.geomspace(1e-5, 0.1, 17)],
    ),
}


def jobs(scale: str, results: Results) -> list[Job]:
    chosen = SCALES[scale]
    listed: list[Job] = []
    whole = config_of(chosen.base).task.longest
    for k in range(chosen.problems):
        listed.append(RatesJob(label=f"rates{k}", settings=chosen.base, problem=k, rates=chosen.rates).named())
        for window in (*chosen.gradients, whole):
            label = f"gradient{k}-T{window}"
            job = GradientJob(label=label, settings=chosen.base, problem=k, window=window, rate=chosen.start)
            listed.append(job.named())
    for seed in range(chosen.seeds):
        listed += [training(chosen, window, seed) for window in chosen.windows]
    return listed


def training(chosen: Scale, window: int, seed: int) -> TrainingJob:
    updates = max(1, round(chosen.total / (window * chosen.batch)))
    settings = (
        *chosen.base,
        *chosen.outer,
        f"seed={seed}",
        f"curriculum.start={window}",
        f"curriculum.end={window}",
        f"outer.updates={updates}",
        f"outer.batch_samples={chosen.batch}",
        f"workers.count={chosen.batch}",
    )
    return TrainingJob(label=f"T{window}-seed{seed}", settings=settings, window=window, seed=seed).named()


def perform(job: Job, train: Train) -> Job:
    if isinstance(job, TrainingJob):
        return learn(job, train)
    if isinstance(job, RatesJob):
        return losses_by_rate(job)
    assert isinstance(job, GradientJob)
    return gradient(job)


def learn(job: TrainingJob, train: Train) -> Training:
    """The learned rate and the outer loss along one training, at 60 points."""
    config = config_of(job.settings)
    versions = sorted({round(v) for v in np.linspace(0, config.outer.updates, 61)})
    trained = train(config, versions)
    losses = [update.loss for update in trained.history]
    per_update = job.window * config.outer.batch_samples
    return Training.of(
        job,
        steps=[v * per_update for v in versions],
        rates=rounded([np.exp(trained.kept[v][0]) for v in versions]),
        losses=rounded([np.mean(losses[a : max(b, a + 1)]) for a, b in pairwise(versions)]),
    )


def losses_by_rate(job: RatesJob) -> Rates:
    evaluator = evaluator_of(job.settings)
    runs = [UnrollJob("adam", job.problem, rate=rate, outer_split="outer_train") for rate in job.rates]
    return Rates.of(job, losses=rounded([evaluator.run(run).mean("train") for run in runs]))


def gradient(job: GradientJob) -> Gradient:
    evaluator = evaluator_of(job.settings)
    start = UnrollJob("adam", job.problem, rate=job.rate, outer_split="outer_train")
    problem, state, _ = evaluator.start(start)
    theta, unroll = jnp.asarray([log(job.rate)], jnp.float32), evaluator.unroll("adam")
    gradients = []
    for _ in range(evaluator.config.task.longest // job.window):
        _, slope, state = unroll.losses_and_grad(theta, problem, state, job.window)
        gradients.append(float(slope[0]))
    return Gradient.of(job, gradients=rounded(gradients))


def best_rate(results: Results) -> tuple[float, Interval]:
    """The rate with the least mean loss over problems, and its interval (over problems)."""
    found = of_kind(results, Rates)
    grid, losses = np.array(found[0].rates), np.array([one.losses for one in found])
    interval = bootstrap(losses, lambda x: float(grid[x.mean(axis=0).argmin()]))
    return interval.value, interval


def loss_at(results: Results, rate: float) -> np.ndarray:
    """[problems] mean loss of the whole problem at one rate, interpolated on the grid."""
    found = of_kind(results, Rates)
    grid = np.log(found[0].rates)
    return np.array([np.interp(np.log(rate), grid, one.losses) for one in found])


def final_rates(results: Results) -> dict[int, np.ndarray]:
    """[seeds] learned rates (geometric mean of the last fifth of a training), by window."""
    table: dict[int, list[float]] = {}
    for one in of_kind(results, Training):
        table.setdefault(one.window, []).append(float(np.exp(np.log(one.rates[-12:]).mean())))
    return {window: np.array(values) for window, values in sorted(table.items())}


def outcome(results: Results) -> Outcome:
    finals, (best, interval) = final_rates(results), best_rate(results)
    short, long = min(finals), max(finals)
    excess = {
        w: float(np.mean([loss_at(results, r).mean() for r in finals[w]]) - loss_at(results, best).mean())
        for w in finals
    }
    sums, whole = gradient_sums(results, short), gradient_sums(results, long)
    start = of_kind(results, Gradient)[0].rate
    biased = opposite(mean(sums), mean(whole))
    distance = {w: np.abs(np.log(v / best)) for w, v in finals.items()}
    farther = paired(distance[short], distance[long])
    driven = every([geometric(start / finals[short]).above(1), farther.above(0)])
    ranges = ", ".join(
        f"T = {w}: {np.exp(np.log(v).mean()):.2g} ({v.min():.2g} to {v.max():.2g} over seeds, "
        f"{excess[w]:.3f} nats above the best rate)"
        for w, v in finals.items()
    )
    sentence = (
        f"Short truncations are biased, their gradient has the opposite sign: {word(biased)}; they drive the rate away from its "
        f"best value, and farther from it than long ones do: {word(driven)}. From {start} the learned rate goes to {ranges}; the best single rate on the whole problem is {best:.2g} "
        f"({interval.low:.2g} to {interval.high:.2g}). The distance in the logarithm of the rate from that is {farther} larger "
        f"with T = {short} than with T = {long}. At {start} the gradient of T = {short}, averaged over a problem, is "
        f"{mean(sums)}, that of the whole problem {mean(whole)}: the same sign on {np.mean(sums * whole > 0):.0%} of the problems."
    )
    return Outcome(every([biased, driven]), sentence)


def opposite(one: Interval, other: Interval) -> Decision:
    """Whether two numbers have different signs."""
    positive = one.above(0), other.above(0)
    return None if None in positive else positive[0] is not positive[1]


def gradient_sums(results: Results, window: int) -> np.ndarray:
    """[problems] mean over a problem's truncations of the gradient in log rate."""
    found = [one for one in of_kind(results, Gradient) if one.window == window]
    return np.array([np.mean(one.gradients) for one in sorted(found, key=lambda one: one.problem)])
