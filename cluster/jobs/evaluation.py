"""The evaluation of a run, as a job: the learned optimizer and its baselines on unseen tasks."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from cluster.jobs import job
from cluster.jobs.job import Pool, Results
from cluster.runs.directory import RunDirectory, load_theta
from common import jsonlines
from common.config import Config
from workers.evaluation.comparison import FILE

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
    from workers.evaluation import items

    results = Results(run.evaluation / FILE)
    first = items.evaluation_items(config, theta, version)
    job.run(first, results, pool, progress)
    rows = [results.rows[item["item"]] for item in first]
    job.run(items.second_items(config, rows, theta), results, pool, progress)


def tune(run: RunDirectory, config: Config, pool: Pool, progress: Progress) -> None:
    """Makes the baselines' unrolls alone."""
    from workers.evaluation import items

    results = Results(run.evaluation / FILE)
    first = items.baseline_items(config)
    job.run(first, results, pool, progress)
    rows = [results.rows[item["item"]] for item in first]
    job.run(items.fine_items(config, rows), results, pool, progress)


class Interim:
    """Evaluations of the learned optimizer while training goes on, every `evaluation.every` outer updates."""

    def __init__(self, run: RunDirectory, config: Config, pool: Pool):
        self._run, self._config, self._due = run, config, 0
        self._job = job.Job([], Results(run.evaluation / FILE), pool)

    def step(self, version: int) -> None:
        """Called now and then with the learner's version; a moment's work when there is something to do."""
        every = self._config.evaluation.every
        if every and version >= self._due:
            from workers.evaluation import items

            theta, newest = load_theta(self._run)
            self._job.add(items.learned_items(self._config, theta, newest))
            self._due = (newest // every + 1) * every
        if not self._job.finished:
            self._job.step()


def summary_of(run: RunDirectory, config: Config, theta: np.ndarray | None) -> dict[str, Any]:
    """The numbers of `--json` against the first baseline; where theta was not evaluated, those of theta alone."""
    from workers.evaluation import scores

    digest = None if theta is None else hashlib.sha256(np.asarray(theta, "<f4").tobytes()).hexdigest()
    rows: list[Any] = jsonlines.read(run.evaluation / FILE)
    numbers: dict[str, Any] = {"theta_sha256": digest}
    if digest is not None and any(row["theta_sha256"] == digest for row in rows):
        numbers = scores.summarise(rows, config, digest, config.evaluation.baselines[0])
    return {**dict.fromkeys(NUMBERS), **numbers}
