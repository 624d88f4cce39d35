"""Figure 6: faster than tuned first-order methods on train loss, better on test loss, also in seconds (section 4.4).

On tasks of unseen classes: the learned optimizers of Figure 5, Adam, RMSProp and SGD with momentum at the best rate of
each task (11 rates, for train and for valid loss), and Adam with regularisation and decay, its eight hyper-parameters
from a random search for train and for valid loss. The scale `wallclock` also has the included learned optimizers, and
the same search for RMSProp and momentum (appendix E); the scale `headline` has the paper's own network, the learned
optimizers that are included for it, and no search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common import pretrained
from workers.evaluation import search
from workers.evaluation.comparison import LEARNED
from workers.evaluation.jobs import TimingJob, UnrollJob, encode
from workers.evaluation.perform import run_draw
from workers.evaluation.search import ADAM, Plan, SearchJob, SearchResult
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
from workers.figures.race import TUNED_FOR, Curve, CurveJob, StepTimes, StepTimesJob, drawn
from workers.figures.race import outcome as outcome

CLAIM = "The learned optimizer is faster than tuned first-order methods on train loss, in steps and in seconds, and better on test loss."
NEEDS = {"mini": ("fig5",), "wallclock": ("fig5",), "headline": (), "paper": ("fig5",)}


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
    family: str = ADAM

    def job(self) -> SearchJob:
        return SearchJob(self.draw, self.rung, self.theta, tuple(self.tasks), self.family)


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
    plans: tuple[Plan, ...] = (search.MINI,)  # of the searches, one for each family
    included: Mapping[str, str] = {}  # learned optimizers that are compared too, by what they are tuned for
    timings: int = 1  # of which the median counts


SCALES = {
    "mini": Scale(("mini",), tasks=100, starts=3),
    "wallclock": Scale(
        ("wallclock",),
        tasks=40,
        starts=5,
        plans=tuple(search.MINI._replace(family=family) for family in search.RANGES),
        included={"train": "small-conv-train", "valid": "small-conv-valid"},
        timings=3,
    ),
    "headline": Scale(
        ("headline",),
        tasks=12,
        starts=2,
        plans=(),
        included={"train": "paper-conv-train", "valid": "paper-conv-valid"},
        timings=3,
    ),
    "paper": Scale(("paper",), tasks=100, starts=5, plans=(search.PAPER,)),
}


def jobs(scale: str, results: Results) -> list[Job]:
    """The grids and the searches; after all of these, the curves of what they found; after all curves, the timings."""
    chosen = SCALES[scale]
    config = config_of(chosen.base)
    tasks = range(config.evaluation.seed, config.evaluation.seed + chosen.tasks)
    listed: list[Job] = [
        GridJob(label=f"grid-{name}-{task}", settings=chosen.base, optimizer=name, task=task).named()
        for task in tasks
        for name in TUNED
    ]
    for plan in chosen.plans:
        listed += draw_jobs(chosen.base, search.jobs(plan, config.task.longest, draws_of(results, plan)))
    known = {result.name for result in results}
    trained = all(best_theta(results, tuned_for) for tuned_for in TUNED_FOR if "fig5" in NEEDS[scale])
    if not trained or any(job.name not in known for job in listed):
        return listed
    fixed = {tuned_for: fixed_contenders(chosen, results, tuned_for) for tuned_for in TUNED_FOR}
    for task in tasks:
        for tuned_for, same in fixed.items():
            rates = {name: best_rate(results, name, task, tuned_for) for name in TUNED}
            grid = [Contender(f"{name} ({tuned_for})", name, rate=rate) for name, rate in rates.items()]
            listed += [curve_job(contender, chosen, task) for contender in (*same, *grid)]
    if any(job.name not in known for job in listed):
        return listed
    thetas = (one.theta for same in fixed.values() for one in same if one.optimizer == LEARNED)
    learned = next(theta for theta in thetas if theta is not None)
    return [*listed, *timing_jobs(chosen, results, learned)]


def timing_jobs(chosen: Scale, results: Results, learned: str) -> list[StepTimesJob]:
    """Each is listed when the one before has its result, so that no other job of the figure runs beside it."""
    searched: dict[str, str] = {plan.family: best_draw(results, plan, "train") for plan in chosen.plans}
    listed = [
        StepTimesJob(label=label, settings=chosen.base, theta=learned, searched=searched, baselines=list(TUNED)).named()
        for label in ("timing", *(f"timing-{k}" for k in range(2, chosen.timings + 1)))
    ]
    known = {result.name for result in of_kind(results, StepTimes)}
    return listed[: sum(job.name in known for job in listed) + 1]


def draw_jobs(base: Settings, listed: Sequence[SearchJob]) -> list[Job]:
    return [DrawJob(label=one.name, settings=base, name=one.name, **one._asdict()) for one in listed]


def draws_of(results: Results, plan: Plan) -> list[SearchResult]:
    """The results of one search."""
    return [draw.result() for draw in of_kind(results, Draw) if draw.family == plan.family]


def best_draw(results: Results, plan: Plan, tuned_for: str) -> str:
    """The theta that a search ends with."""
    return search.best(draws_of(results, plan), tuned_for).theta


class Contender(NamedTuple):
    """A tuned optimizer."""

    shown: str
    optimizer: str
    theta: str | None = None
    rate: float | None = None


def fixed_contenders(chosen: Scale, results: Results, tuned_for: str) -> list[Contender]:
    """The optimizers that are the same on every task: learned ones, and the best draws of the searches."""
    thetas = {"learned": best_theta(results, tuned_for)}
    if tuned_for in chosen.included:
        thetas["included"] = included_theta(chosen.included[tuned_for])
    return [
        *(Contender(f"{name} ({tuned_for})", LEARNED, theta) for name, theta in thetas.items() if theta is not None),
        *(
            Contender(f"{plan.family} ({tuned_for})", plan.family, best_draw(results, plan, tuned_for))
            for plan in chosen.plans
        ),
    ]


def included_theta(name: str) -> str:
    """The theta of an included optimizer, encoded."""
    path = pretrained.find(name)
    assert path is not None, name
    return encode(pretrained.load(path).theta)


def curve_job(contender: Contender, chosen: Scale, task: int) -> CurveJob:
    label = f"curve-{contender.shown}-{task}".replace(" ", "")
    return CurveJob(label=label, settings=chosen.base, task=task, starts=chosen.starts, **contender._asdict()).named()


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
        # Rounded before the mean too, as the committed rows are.
        lines = {loss: rounded([run.curves.of(loss) for run in runs], 4) for loss in drawn(job)}
        lines = {loss: rounded(np.mean(of_starts, axis=0), 4) for loss, of_starts in lines.items()}
        means = {f"mean_{loss}": rounded([run.mean(loss) for run in runs]) for loss in ("train", "test")}
        return Curve.of(job, steps=list(runs[0].steps), **lines, **means)
    assert isinstance(job, StepTimesJob)
    timed = evaluator.time(TimingJob(job.theta, tuple(job.baselines), tuple(job.searched.items())))
    return StepTimes.of(job, seconds=rounded(timed.seconds), quartiles=rounded(timed.quartiles))
