"""The evaluation of a run as jobs: the learned optimizer and its baselines on unseen tasks."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cluster.jobs import candidates, job
from cluster.jobs.job import Job, JobQueue, Pool, Progress, Results
from cluster.runs.directory import RunDirectory
from common.config import Config
from common.files import explain
from learner.checkpoints import latest_checkpoint, load_theta
from workers.evaluation import jobs
from workers.evaluation.comparison import Comparison, summarise
from workers.evaluation.jobs import Learned, digest_of
from workers.evaluation.results import FILE, UnrollResult, is_current, parse
from workers.evaluation.scores import NO_SCORES

log = logging.getLogger(__name__)

NUMBERS = ("tasks", "learned_mean", "baseline_mean", "baseline_per_task_mean", "ratio", "wins")


def evaluate(run: RunDirectory, config: Config, subjects: Sequence[Learned], pool: Pool, progress: Progress) -> None:
    """Computes all missing unrolls of the learned optimizers and the baselines."""
    results = results_of(run)
    done = _grown(
        results,
        lambda known: jobs.first_stage(config, subjects, known),
        lambda listed: job.run(listed, results, pool, progress),
    )
    job.run(_listed(jobs.second_stage(config, done, subjects)), results, pool, progress)


def tune(run: RunDirectory, config: Config, pool: Pool, progress: Progress) -> None:
    """Computes all missing unrolls of the baselines."""
    results = results_of(run)
    _grown(
        results,
        lambda known: jobs.baseline_jobs(config, known),
        lambda listed: job.run(listed, results, pool, progress),
    )


def results_of(run: RunDirectory) -> Results:
    """The results of a run's evaluations. Those of older versions that cannot be scored are not among them."""
    return Results(run.evaluation / FILE, is_current)


def _grown(
    results: Results,
    stage: Callable[[list[UnrollResult]], Iterable[jobs.Job]],
    run: Callable[[list[Job]], None],
) -> list[UnrollResult]:
    """Runs the jobs of a stage, which grows with its own results, rung by rung; returns the results."""
    done: list[UnrollResult] = []
    complete: list[Job] = []
    while (listed := _listed(stage(done))) != complete:
        run(listed)
        complete, done = listed, parse(results.of(listed))
    return done


def _listed(typed: Iterable[jobs.Job]) -> list[Job]:
    return [Job.from_json(one.to_json()) for one in typed]


class InterimEvaluation:
    """Evaluates the learned optimizer during training, every `evaluation.every` outer updates, to choose the best version."""

    def __init__(self, run: RunDirectory, config: Config, pool: Pool):
        self._run, self._config, self._pool, self._due = run, config, pool, 0
        self._failed = -1  # the version at which nothing could be stored
        self._results = results_of(run)
        started = candidates.jobs_of(run, config) if config.evaluation.every else ()
        self._queue = JobQueue([job for _, own in started for job in own], self._results, pool)

    def step(self, version: int) -> None:
        """Submits and stores what it can; takes a moment. To be called repeatedly with the version of the learner.

        While the storage fails, training goes on without it; it is tried again with each update.
        """
        if version == self._failed:
            return
        try:
            self._step(version)
        except OSError as error:
            self._failed = version
            log.error("cannot store the evaluation at version %d (%s); training continues", version, explain(error))

    def _step(self, version: int) -> None:
        every = self._config.evaluation.every
        if every and version >= self._due:
            kept = candidates.add(self._run, latest_checkpoint(self._run.path))
            if kept is not None:  # else the learner has newer ones
                newest = int(kept.stem.rpartition("-v")[2])
                self._queue.add(candidates.choosing(self._config, Learned(load_theta(kept), newest)))
                self._due = (newest // every + 1) * every
        if not self._queue.finished:
            self._queue.step()
            if self._queue.finished:
                candidates.settle(self._run, self._config, self._results.by_name)

    def conclude(self, progress: Progress | None) -> None:
        """Names the best version at the end of the training.

        Args:
          progress: of the evaluation of all candidates that have none yet, the newest version among them; None: only
            those that have been evaluated are compared.
        """
        if not self._config.evaluation.every:
            return
        results = results_of(self._run)  # with those of this queue's jobs that a later one has collected
        if progress is not None:
            candidates.add(self._run, latest_checkpoint(self._run.path))
            left = [job for _, own in candidates.jobs_of(self._run, self._config) for job in own]
            job.run(left, results, self._pool, progress)
        candidates.settle(self._run, self._config, results.by_name)


def numbers_of(comparison: Comparison, config: Config) -> dict[str, Any]:
    """The numbers of `--json`: means against the first baseline, and the scores."""
    summary = summarise(comparison, config.evaluation.optimizers[0])
    numbers: dict[str, Any] = {"theta_sha256": comparison.theta_sha256} if summary is None else summary.to_json()
    return numbers | ({} if comparison.scores is None else comparison.scores.to_json())


def summary_of(comparison: Comparison | None, config: Config, theta: np.ndarray | None) -> dict[str, Any]:
    """The numbers of `--json`; null where theta has not been compared."""
    digest = None if theta is None else digest_of(theta)
    numbers: dict[str, Any] = {"theta_sha256": digest}
    if comparison is not None and comparison.theta_sha256 == digest:
        numbers = numbers_of(comparison, config)
    return {**dict.fromkeys((*NUMBERS, *NO_SCORES)), **numbers}
