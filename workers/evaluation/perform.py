"""Jobs of an evaluation as they travel to a worker: JSON in, JSON out."""

from collections.abc import Mapping
from typing import Any

from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import TimingJob, UnrollJob
from workers.evaluation.search import LOSSES, SearchJob, SearchResult


def perform(evaluator: Evaluator, record: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a job of any kind."""
    if record["kind"] == "timing":
        return evaluator.time(TimingJob.from_json(record)).to_json()
    if record["kind"] == "search":
        return run_draw(evaluator, SearchJob.from_json(record)).to_json()
    return evaluator.run(UnrollJob.from_json(record)).to_json()


def run_draw(evaluator: Evaluator, job: SearchJob) -> SearchResult:
    """Runs one draw of the random search on each of its tasks."""
    runs = [UnrollJob(job.family, task, theta=job.theta, outer_split="outer_train") for task in job.tasks]
    done = [evaluator.run(run) for run in runs]
    return SearchResult(job, *(tuple(result.mean(loss) for result in done) for loss in LOSSES))
