"""The random search as a job of a run directory: its rows, and its best sets as theta files that `evaluate` takes."""

from pathlib import Path
from typing import NamedTuple

from cluster.jobs import job
from cluster.jobs.evaluation import Progress
from cluster.jobs.job import Pool, Results
from cluster.runs.directory import RunDirectory
from common import pretrained
from common.config import Config, OptimizerConfig
from workers.evaluation import search
from workers.evaluation.jobs import decode
from workers.evaluation.search import Plan, SearchResult, keeping_all, rejecting


class Size(NamedTuple):
    """What a search was asked for."""

    draws: int
    runs: int  # inner runs of a draw that is not rejected
    keep_all: bool  # no early rejection

    def plan(self) -> Plan:
        return (keeping_all if self.keep_all else rejecting)(self.draws, self.runs)


class Best(NamedTuple):
    """The best set of hyper-parameters by one loss."""

    path: Path  # its theta file
    loss: float  # mean over its runs
    runs: int
    shown: str  # the hyper-parameters, for people


def searched(run: RunDirectory, config: Config, size: Size, pool: Pool, progress: Progress) -> dict[str, Best]:
    """Makes every inner run that is missing, then writes the best set by each loss."""
    plan = size.plan()
    results = Results(run.evaluation / f"{plan.name}.jsonl")
    while True:
        done = [SearchResult.from_json(row) for row in results.rows.values()]
        items = [one.to_json() for one in search.jobs(plan, config.task.inner_steps, done)]
        if not results.missing(items):
            break
        job.run(items, results, pool, progress)
    return {loss: write(run, plan, search.best(done, loss), loss) for loss in search.LOSSES}


def write(run: RunDirectory, plan: Plan, best: search.Best, loss: str) -> Best:
    """The best draw by one loss, as a theta file."""
    theta = decode(best.theta)
    path = run.evaluation / f"adam8-{loss}{pretrained.SUFFIX}"
    origin = f"from {plan.name} in {run.name}, best by {loss} loss"
    pretrained.save(path, pretrained.Pretrained(theta, OptimizerConfig(family="adam8"), origin))
    return Best(path, sum(best.losses) / len(best.losses), len(best.losses), search.describe(theta))
