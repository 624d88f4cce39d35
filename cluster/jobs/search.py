"""The random search as a job of a run directory: its rows, and its best sets as theta files that `evaluate` takes."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.jobs import job
from cluster.jobs.evaluation import Progress
from cluster.jobs.job import Pool, Results
from cluster.runs.directory import RunDirectory
from common import pretrained
from common.config import Config, OptimizerConfig

if TYPE_CHECKING:
    from workers.evaluation.search import Plan


class Size(NamedTuple):
    """What a search was asked for."""

    draws: int
    runs: int  # inner runs of a draw that is not rejected
    keep_all: bool  # no early rejection

    def plan(self) -> "Plan":
        from workers.evaluation.search import keeping_all, rejecting

        return (keeping_all if self.keep_all else rejecting)(self.draws, self.runs)


class Best(NamedTuple):
    """The best set of hyper-parameters by one loss."""

    path: Path  # its theta file
    loss: float  # mean over its runs
    runs: int
    shown: str  # the hyper-parameters, for people


def searched(run: RunDirectory, config: Config, size: Size, pool: Pool, progress: Progress) -> dict[str, Best]:
    """Makes every inner run that is missing, then writes the best set by each loss."""
    from workers.evaluation import search

    plan = size.plan()
    results = Results(run.evaluation / f"{plan.name}.jsonl")
    while True:
        items = search.items(plan, config.task.inner_steps, list(results.rows.values()))
        if not results.missing(items):
            break
        job.run(items, results, pool, progress)
    return {loss: write(run, plan, results, loss) for loss in search.LOSSES}


def write(run: RunDirectory, plan: "Plan", results: Results, loss: str) -> Best:
    from workers.evaluation import search
    from workers.evaluation.items import decode, sha256

    rows = list(results.rows.values())
    theta = search.best(rows, loss)
    losses = [x for row in rows if sha256(row["theta"]) == sha256(theta) for x in row[loss]]
    path = run.evaluation / f"adam8-{loss}{pretrained.SUFFIX}"
    origin = f"from {plan.name} in {run.name}, best by {loss} loss"
    pretrained.save(path, pretrained.Pretrained(decode(theta), OptimizerConfig(family="adam8"), origin))
    return Best(path, sum(losses) / len(losses), len(losses), search.describe(decode(theta)))
