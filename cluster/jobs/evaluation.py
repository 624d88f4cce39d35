"""The evaluation of a run, as a job: the learned optimizer and its baselines on unseen tasks."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cluster.jobs import job
from cluster.jobs.job import Pool, Results
from cluster.runs.directory import RunDirectory, load_theta
from common.config import Config
from workers.evaluation import jobs
from workers.evaluation.comparison import Comparison, summarise
from workers.evaluation.jobs import Job, digest_of
from workers.evaluation.results import FILE, parse

Progress = Callable[[int, int], None]  # (items done, items in all); an exception it raises ends the job
NUMBERS = ("tasks", "learned_mean", "baseline_mean", "baseline_per_task_mean", "ratio", "wins")


def evaluate(
    run: RunDirectory,
    config: Config,
    theta: np.ndarray,
    version: int | None,
    pool: Pool,
    progress: Progress,
) -> None:
    """Makes every unroll that is missing.

    The second stage depends on what the first has shown (which learning rate is each task's best).
    """
    results = Results(run.evaluation / FILE)
    first = jobs.first_stage(config, theta, version)
    job.run(_records(first), results, pool, progress)
    done = parse(results.rows[one.name] for one in first)
    job.run(_records(jobs.second_stage(config, done, theta)), results, pool, progress)


def tune(run: RunDirectory, config: Config, pool: Pool, progress: Progress) -> None:
    """Makes the baselines' unrolls alone."""
    results = Results(run.evaluation / FILE)
    first = jobs.baseline_jobs(config)
    job.run(_records(first), results, pool, progress)
    done = parse(results.rows[one.name] for one in first)
    job.run(_records(jobs.fine_jobs(config, done)), results, pool, progress)


def _records(listed: Iterable[Job]) -> list[job.Item]:
    return [one.to_json() for one in listed]


class Interim:
    """Evaluations of the learned optimizer while training goes on, every `evaluation.every` outer updates."""

    def __init__(self, run: RunDirectory, config: Config, pool: Pool):
        self._run, self._config, self._due = run, config, 0
        self._job = job.Job([], Results(run.evaluation / FILE), pool)

    def step(self, version: int) -> None:
        """Called now and then with the learner's version; a moment's work when there is something to do."""
        every = self._config.evaluation.every
        if every and version >= self._due:
            theta, newest = load_theta(self._run)
            self._job.add(_records(jobs.learned_jobs(self._config, theta, newest)))
            self._due = (newest // every + 1) * every
        if not self._job.finished:
            self._job.step()


def summary_of(comparison: Comparison | None, config: Config, theta: np.ndarray | None) -> dict[str, Any]:
    """The numbers of `--json` against the first baseline; null where theta has not been compared with it."""
    digest = None if theta is None else digest_of(theta)
    numbers: dict[str, Any] = {"theta_sha256": digest}
    if comparison is not None and comparison.theta_sha256 == digest:
        summary = summarise(comparison, config.evaluation.baselines[0])
        numbers = numbers if summary is None else summary.to_json()
    return {**dict.fromkeys(NUMBERS), **numbers}
