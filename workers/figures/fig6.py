"""Figure 6: faster than tuned first-order methods on train loss, better on test loss, also in seconds (section 4.4).

On tasks of unseen classes: the learned optimizers of Figure 5, Adam, RMSProp and SGD with momentum at the best rate of
each task (11 rates, for train and for valid loss), and Adam with regularisation and decay, its eight hyper-parameters
from a random search for train and for valid loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workers.evaluation import search
from workers.evaluation.comparison import LEARNED
from workers.evaluation.jobs import TimingJob, UnrollJob
from workers.evaluation.perform import run_draw
from workers.evaluation.search import Plan, SearchJob, SearchResult
from workers.evaluation.tuning import TUNED, LossTable, grid_rates
from workers.figures.fig5 import best_theta
from workers.figures.figure import (
    Job,
    Kind,
    Outcome,
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    input_only,
    key,
    of_kind,
    rounded,
)
from workers.figures.statistics import Interval, bootstrap, sign_test

CLAIM = "The learned optimizer is faster than tuned first-order methods on train loss, in steps and in seconds, and better on test loss."
NEEDS = ("fig5",)


@dataclass(frozen=True, kw_only=True)
class GridJob(Job, figure="fig6", kind="grid"):
    """A baseline at every rate, on one task."""

    optimizer: str
    task: int


@dataclass(frozen=True, kw_only=True)
class Grid(GridJob):
    rates: Sequence[float]
    train: Sequence[float]  # [rates] mean losses over the steps
    valid: Sequence[float]
    test: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class DrawJob(Job, figure="fig6", kind="search"):
    """A job of the random search; its name is the one that it has there."""

    draw: int
    rung: int
    theta: str
    tasks: Sequence[int]

    def job(self) -> SearchJob:
        return SearchJob(self.draw, self.rung, self.theta, tuple(self.tasks))


@dataclass(frozen=True, kw_only=True)
class Draw(DrawJob):
    train: Sequence[float]  # [tasks] mean losses over the steps
    valid: Sequence[float]

    def result(self) -> SearchResult:
        return SearchResult(self.job(), tuple(self.train), tuple(self.valid))


@dataclass(frozen=True, kw_only=True)
class CurveJob(Job, figure="fig6", kind="curve"):
    """A tuned optimizer on one task, from several initialisations."""

    shown: str = key("name")
    task: int
    starts: int
    theta: str | None = input_only()
    rate: float | None = None
    optimizer: str


@dataclass(frozen=True, kw_only=True)
class Curve(CurveJob):
    steps: Sequence[int]  # [points]
    train: Sequence[Sequence[float]]  # [starts, points] losses
    test: Sequence[Sequence[float]]
    mean_train: Sequence[float]  # [starts] mean losses over the steps
    mean_test: Sequence[float]

    def losses(self, loss: str) -> Sequence[Sequence[float]]:
        return self.train if loss == "train" else self.test

    def means(self, loss: str) -> Sequence[float]:
        return self.mean_train if loss == "train" else self.mean_test


@dataclass(frozen=True, kw_only=True)
class StepTimesJob(Job, figure="fig6", kind="timing"):
    """The timing protocol on all optimizers."""

    theta: str = input_only()
    adam8: str
    baselines: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class StepTimes(StepTimesJob):
    seconds: Mapping[str, float]  # per inner step, by optimizer
    quartiles: Mapping[str, Sequence[float]]


KINDS = (
    Kind(GridJob, Grid),
    Kind(DrawJob, Draw),
    Kind(CurveJob, Curve),
    Kind(StepTimesJob, StepTimes),
)


class Scale(NamedTuple):
    base: Settings
    tasks: int
    starts: int
    plan: Plan


TUNED_FOR = {"train": "train", "valid": "test"}  # what is tuned for the left loss is shown on the right one
SCALES = {
    "mini": Scale(("mini",), tasks=20, starts=3, plan=search.MINI),
    "paper": Scale(("paper",), tasks=100, starts=5, plan=search.PAPER),
}


def jobs(scale: str, results: Results) -> list[Job]:
    base, count, starts, plan = SCALES[scale]
    config = config_of(base)
    tasks = range(config.evaluation.seed, config.evaluation.seed + count)
    listed: list[Job] = [
        GridJob(label=f"grid-{name}-{task}", settings=base, optimizer=name, task=task).named()
        for task in tasks
        for name in TUNED
    ]
    draws = [draw.result() for draw in of_kind(results, Draw)]
    listed += [
        DrawJob(label=one.name, settings=base, name=one.name, **one._asdict())
        for one in search.jobs(plan, config.task.inner_steps, draws)
    ]
    known = {result.name for result in results}
    learned = {objective: best_theta(results, objective) for objective in TUNED_FOR}
    theta = learned["train"]
    if theta is None or any(job.name not in known for job in listed):
        return listed
    adam8 = {loss: search.best(draws, loss).theta for loss in TUNED_FOR}
    for task in tasks:
        for contender in contenders(results, task, learned, adam8):
            listed.append(curve_job(contender, base, task, starts))
    timing = StepTimesJob(label="timing", settings=base, theta=theta, adam8=adam8["train"], baselines=list(TUNED))
    return [*listed, timing.named()]


class Contender(NamedTuple):
    """A tuned optimizer."""

    shown: str
    optimizer: str
    theta: str | None = None
    rate: float | None = None


def contenders(
    results: Results, task: int, learned: Mapping[str, str | None], adam8: Mapping[str, str]
) -> list[Contender]:
    """Every optimizer as it is tuned for a task. Args: learned, adam8: thetas by what they are tuned for."""
    listed = []
    for tuned_for in TUNED_FOR:
        listed.append(Contender(f"learned ({tuned_for})", LEARNED, theta=learned[tuned_for]))
        listed.append(Contender(f"adam8 ({tuned_for})", "adam8", theta=adam8[tuned_for]))
        for name in TUNED:
            rate = best_rate(results, name, task, tuned_for)
            listed.append(Contender(f"{name} ({tuned_for})", name, rate=rate))
    return listed


def curve_job(contender: Contender, base: Settings, task: int, starts: int) -> CurveJob:
    label = f"curve-{contender.shown}-{task}".replace(" ", "")
    return CurveJob(label=label, settings=base, task=task, starts=starts, **contender._asdict()).named()


def best_rate(results: Results, name: str, task: int, loss: str) -> float | None:
    grid = next(one for one in of_kind(results, Grid) if (one.optimizer, one.task) == (name, task))
    losses = grid.train if loss == "train" else grid.valid
    return LossTable.of_rates(grid.rates, np.transpose([losses])).best_settings()[0].rate


def perform(job: Job, train: Train) -> Job:
    evaluator = evaluator_of(job.settings)
    if isinstance(job, DrawJob):
        done = run_draw(evaluator, job.job())
        return Draw.of(job, train=list(done.train), valid=list(done.valid))
    if isinstance(job, GridJob):
        rates = grid_rates(evaluator.config.evaluation)
        runs = [evaluator.run(UnrollJob(job.optimizer, job.task, rate=rate)) for rate in rates]
        means = {loss: rounded([run.mean(loss) for run in runs]) for loss in ("train", "valid", "test")}
        return Grid.of(job, rates=rates, **means)
    if isinstance(job, CurveJob):
        starts = [UnrollJob(job.optimizer, job.task, k, job.rate, job.theta) for k in range(job.starts)]
        runs = [evaluator.run(start) for start in starts]
        lines = {loss: rounded([run.curves.of(loss) for run in runs], 4) for loss in ("train", "test")}
        means = {f"mean_{loss}": rounded([run.mean(loss) for run in runs]) for loss in ("train", "test")}
        return Curve.of(job, steps=list(runs[0].steps), **lines, **means)
    assert isinstance(job, StepTimesJob)
    timed = evaluator.time(TimingJob(job.theta, tuple(job.baselines), job.adam8))
    return StepTimes.of(job, seconds=rounded(timed.seconds), quartiles=rounded(timed.quartiles))


def curves(results: Results, shown: str) -> list[Curve]:
    """Those of one optimizer, by task."""
    return sorted((one for one in of_kind(results, Curve) if one.shown == shown), key=lambda one: one.task)


def means(results: Results, shown: str, loss: str) -> np.ndarray:
    """[tasks] mean over steps and initialisations."""
    return np.array([np.mean(one.means(loss)) for one in curves(results, shown)])


def seconds(results: Results) -> Mapping[str, float]:
    """Per inner step, by optimizer."""
    return of_kind(results, StepTimes)[0].seconds


def means_in_time(results: Results, shown: str, loss: str) -> np.ndarray:
    """[tasks] mean loss over the seconds in which the fastest optimizer makes all its steps."""
    found, cost = curves(results, shown), seconds(results)
    steps = found[0].steps
    instants = np.linspace(0, min(cost.values()) * steps[-1], 200)
    own = np.array(steps) * cost[found[0].optimizer]
    return np.array([np.mean([np.interp(instants, own, line) for line in one.losses(loss)]) for one in found])


class Gap(NamedTuple):
    """A baseline against the learned optimizer."""

    rival: str
    measure: str
    difference: Interval  # baseline - learned, mean over tasks
    wins: int  # tasks


def rivals(tuned_for: str) -> dict[str, str]:
    """The baselines of a learned optimizer, by their names here."""
    tuned = {f"{name} ({tuned_for})": name for name in TUNED}
    return {**tuned, f"adam8 ({tuned_for})": "adam8"}


def gaps(results: Results) -> list[Gap]:
    table = []
    for tuned_for, shown in TUNED_FOR.items():
        for rival in rivals(tuned_for):
            for what, measure in (("steps", means), ("seconds", means_in_time)):
                gap = measure(results, rival, shown) - measure(results, f"learned ({tuned_for})", shown)
                table.append(Gap(rival, f"{shown} loss over {what}", bootstrap(gap), int((gap > 0).sum())))
    return table


def outcome(results: Results) -> Outcome:
    table = gaps(results)
    tasks = len({one.task for one in of_kind(results, Curve)})
    said = [
        f"{gap.rival}, {gap.measure}: {gap.difference}, wins {gap.wins} of {tasks} (p = {sign_test(gap.wins, tasks):.2g})"
        for gap in table
    ]
    holds = all(gap.difference.low > 0 for gap in table)
    return Outcome(holds, "Baseline minus learned (nats, 95 %): " + "; ".join(said) + ".")
