"""The random search as jobs: its results in a run directory, and its best sets as theta files for `evaluate`."""

from pathlib import Path
from typing import NamedTuple

from cluster.jobs import job
from cluster.jobs.job import Job, Pool, Progress, Results
from cluster.runs.directory import RunDirectory
from common import pretrained
from common.config import Config, OptimizerConfig
from workers.evaluation import search
from workers.evaluation.jobs import decode
from workers.evaluation.search import Plan, Searched, SearchResult, keeping_all, rejecting


class Size(NamedTuple):
    """The size of a search."""

    draws: int  # sets of hyper-parameters
    runs: int  # inner runs of a set that is not rejected
    keep_all: bool  # no early rejection
    optimizer: Searched  # the family whose hyper-parameters are searched

    def plan(self) -> Plan:
        return (keeping_all if self.keep_all else rejecting)(self.draws, self.runs, self.optimizer)


class Best(NamedTuple):
    """The best set of hyper-parameters by one loss."""

    path: Path  # its theta file
    loss: float  # mean over its runs
    runs: int
    shown: str  # the hyper-parameters as text


def searched(run: RunDirectory, config: Config, size: Size, pool: Pool, progress: Progress) -> dict[str, Best]:
    """Computes all missing inner runs, then writes and returns the best set by each loss."""
    plan = size.plan()
    results = Results(run.results_file(plan.name))
    while True:
        done = [SearchResult.from_json(line) for line in results.by_name.values()]
        jobs = [Job.from_json(one.to_json()) for one in search.jobs(plan, config.task.longest, done)]
        if not results.missing(jobs):
            break
        job.run(jobs, results, pool, progress)
    return {loss: write(run, plan, search.best(done, loss), loss) for loss in search.LOSSES}


def write(run: RunDirectory, plan: Plan, best: search.Best, loss: str) -> Best:
    """Writes the best set by one loss as a theta file."""
    theta = decode(best.theta)
    path = run.evaluation / f"{plan.family}-{loss}{pretrained.SUFFIX}"
    origin = f"from {plan.name} in {run.name}, best by {loss} loss"
    pretrained.save(path, pretrained.Pretrained(theta, OptimizerConfig(family=plan.family), origin))
    return Best(path, sum(best.losses) / len(best.losses), len(best.losses), search.describe(theta, plan.family))
