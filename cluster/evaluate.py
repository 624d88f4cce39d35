"""The evaluation of a run, as a job: the learned optimizer and its baselines on unseen tasks."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from cluster import jobs
from cluster.comparison import read_lines
from cluster.jobs import Pool, Results
from cluster.rundirectory import RunDirectory
from common.config import Config
from learner.checkpoints import latest_checkpoint, load_theta

FILE = "unrolls.jsonl"
NUMBERS = ("tasks", "learned_mean", "baseline_mean", "baseline_per_task_mean", "ratio", "wins")


def evaluate(
    run: RunDirectory,
    config: Config,
    theta: np.ndarray,
    version: int | None,
    pool: Pool,
    progress: Callable[[int, int], bool],
) -> bool:
    """Makes every unroll that is missing; False when `progress` stopped it.

    The second stage depends on what the first has shown (which learning rate is each task's best).
    """
    from workers import items

    results = Results(run.evaluation / FILE)
    first = items.evaluation_items(config, theta, version)
    if not jobs.run(first, results, pool, progress):
        return False
    rows = [results.rows[item["item"]] for item in first]
    second = items.second_items(config, rows, theta)
    return jobs.run(second, results, pool, progress)


def theta_of(run: RunDirectory) -> tuple[np.ndarray, int]:
    """Theta [P] of the run's newest checkpoint, and its version. Raises UserError when there is none."""
    path = latest_checkpoint(run.path)
    return load_theta(path), int(path.stem.rpartition("-v")[2])


def summary_of(run: RunDirectory, config: Config) -> dict[str, Any]:
    """The numbers of `--json` against the first baseline; without an evaluation only those of theta."""
    from workers import scores

    theta, version = theta_of(run)
    digest = hashlib.sha256(np.asarray(theta, "<f4").tobytes()).hexdigest()
    rows = read_lines(run.evaluation / FILE)
    numbers: dict[str, Any] = {"theta_sha256": digest}
    if any(row["theta_sha256"] == digest for row in rows):
        numbers = scores.summarise(rows, config, digest, config.evaluation.baselines[0])
    return {"version": version, **dict.fromkeys(NUMBERS), **numbers}
