"""The evaluation of a run as jobs: the learned optimizer and its baselines on unseen tasks."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cluster.jobs import candidates, job
from cluster.jobs.job import Job, JobQueue, Pool, Progress, Results
from cluster.runs.directory import RunDirectory
from common.config import Config
from learner.checkpoints import latest_checkpoint, load_theta
from workers.evaluation import jobs
from workers.evaluation.comparison import Comparison, summarise
from workers.evaluation.jobs import Learned, digest_of
from workers.evaluation.results import FILE, UnrollResult, parse
from workers.evaluation.scores import NO_SCORES

NUMBERS = ("tasks", "learned_mean", "baseline_mean", "baseline_per_task_mean", "ratio", "wins")


def evaluate(run: RunDirectory, config: Config, subjects: Sequence[Learned], pool: Pool, progress: Progress) -> None:
    """Computes all missing unrolls of the learned optimizers and the baselines."""
    _staged(
        Results(run.evaluation / FILE),
        lambda done: jobs.first_stage(config, subjects, done),
        lambda done: jobs.second_stage(config, done, subjects),
        lambda listed, results: job.run(listed, results, pool, progress),
    )


def tune(run: RunDirectory, config: Config, pool: Pool, progress: Progress) -> None:
    """Computes all missing unrolls of the baselines."""
    _staged(
        Results(run.evaluation / FILE),
        lambda done: jobs.baseline_jobs(config, done),
        lambda done: jobs.fine_jobs(config, done),
        lambda listed, results: job.run(listed, results, pool, progress),
    )


def _staged(
    results: Results,
    first: Callable[[list[UnrollResult]], Iterable[jobs.Job]],
    second: Callable[[list[UnrollResult]], Iterable[jobs.Job]],
    run: Callable[[list[Job], Results], None],
) -> None:
    """The first stage grows with its own results, rung by rung; the second depends on the best settings of the first."""
    done: list[UnrollResult] = []
    complete: list[Job] = []
    while (listed := _listed(first(done))) != complete:
        run(listed, results)
        complete, done = listed, parse(results.of(listed))
    run(_listed(second(done)), results)


def _listed(typed: Iterable[jobs.Job]) -> list[Job]:
    return [Job.from_json(one.to_json()) for one in typed]


class InterimEvaluation:
    """Evaluates the learned optimizer during training, every `evaluation.every` outer updates."""

    def __init__(self, run: RunDirectory, config: Config, pool: Pool):
        self._run, self._config, self._due = run, config, 0
        self._results = Results(run.evaluation / FILE)
        started = candidates.jobs_of(run, config) if config.evaluation.every else ()
        self._queue = JobQueue([job for _, own in started for job in _listed(own)], self._results, pool)

    def step(self, version: int) -> None:
        """Submits and stores what it can; takes a moment. To be called repeatedly with the version of the learner."""
        every = self._config.evaluation.every
        if every and version >= self._due:
            kept = candidates.add(self._run, latest_checkpoint(self._run.path))
            if kept is not None:  # else the learner has newer ones
                newest = int(kept.stem.rpartition("-v")[2])
                self._queue.add(_listed(jobs.learned_jobs(self._config, Learned(load_theta(kept), newest))))
                self._due = (newest // every + 1) * every
        if not self._queue.finished:
            self._queue.step()
            if self._queue.finished:
                candidates.settle(self._run, self._config, self._results.by_name)

    def conclude(self, *, newest: bool) -> None:
        """Names the best version at the end of the training; `newest`: the last one has been evaluated too."""
        if self._config.evaluation.every:
            if newest:
                candidates.add(self._run, latest_checkpoint(self._run.path))
            candidates.settle(self._run, self._config, Results(self._run.evaluation / FILE).by_name)


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
