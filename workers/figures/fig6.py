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
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    of_kind,
    rounded,
)
from workers.figures.race import TUNED_FOR, Curve, CurveJob, StepTimes, StepTimesJob
from workers.figures.race import outcome as outcome

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


SCALES = {
    "mini": Scale(("mini",), tasks=100, starts=3, plan=search.MINI),
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
        DrawJob(
            label=one.name, settings=base, name=one.name, draw=one.draw, rung=one.rung, theta=one.theta, tasks=one.tasks
        )
        for one in search.jobs(plan, config.task.longest, draws)
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
