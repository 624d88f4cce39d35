"""Rows of an evaluation in, its numbers out: pure functions of the JSON lines."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from common.config import Config
from workers.evaluation import baselines

Row = Mapping[str, Any]
Table = dict[tuple[float, int], float]  # mean loss by rate and task


def unrolls_of(rows: Iterable[Row], optimizer: str, outer_split: str = "outer_test") -> list[Row]:
    return [row for row in rows if row["optimizer"] == optimizer and row["outer_split"] == outer_split]


def losses(rows: Iterable[Row], name: str, objective: str) -> Table:
    """Mean losses of a tuned baseline from the first initialisation."""
    first = (row for row in unrolls_of(rows, name) if row["initialisation"] == 0)
    return {(row["rate"], row["task"]): row[f"mean_{objective}"] for row in first}


def best_rates(rows: Iterable[Row], name: str, objective: str) -> dict[int, float]:
    """The best rate of each task, of all that were run to the end."""
    table = losses((row for row in rows if row.get("stopped") is None), name, objective)
    return {task: min((loss, rate) for (rate, t), loss in table.items() if t == task)[1] for _, task in table}


def learned_losses(rows: Iterable[Row], objective: str, theta_sha256: str) -> dict[int, float]:
    own = [row for row in unrolls_of(rows, "learned") if row["theta_sha256"] == theta_sha256]
    return {row["task"]: row[f"mean_{objective}"] for row in own if row["initialisation"] == 0}


def summarise(rows: list[Row], config: Config, theta_sha256: str, name: str = "adam") -> dict[str, Any]:
    """The learned optimizer against one tuned baseline on the objective of the run; the fields of `--json`.

    `*_fine_*` compares with the grid twice as fine, and is None where that has not been run. `ratio_error` is the
    standard error of the ratio over tasks (jackknife).
    """
    objective = config.estimator.objective
    learned = learned_losses(rows, objective, theta_sha256)
    table = losses(rows, name, objective)
    tasks = sorted(set(learned) & {task for _, task in table})
    grid = _columns(table, baselines.rates(config.evaluation), tasks)
    fine = _columns(table, sorted({rate for rate, _ in table}), tasks)
    own, best = np.array([learned[task] for task in tasks]), grid.min(axis=0)
    tuned = None if len(fine) == len(grid) else fine.min(axis=0)
    return {
        "objective": objective,
        "baseline": name,
        "tasks": len(tasks),
        "learned_mean": float(own.mean()),
        "baseline_mean": float(grid.mean(axis=1).min()),
        "baseline_per_task_mean": float(best.mean()),
        "baseline_fine_per_task_mean": None if tuned is None else float(tuned.mean()),
        "ratio": float(own.mean() / best.mean()),
        "ratio_error": jackknife(own, best),
        "ratio_fine": None if tuned is None else float(own.mean() / tuned.mean()),
        "wins": int((own < best).sum()),
        "wins_fine": None if tuned is None else int((own < tuned).sum()),
        "inside_grid": int(((grid.argmin(axis=0) > 0) & (grid.argmin(axis=0) < len(grid) - 1)).sum()),
        "theta_sha256": theta_sha256,
    }


def _columns(table: Table, rates: list[float], tasks: list[int]) -> np.ndarray:
    """[rates, tasks]; rates that lack a task are left out."""
    complete = [rate for rate in rates if all((rate, task) in table for task in tasks)]
    return np.array([[table[rate, task] for task in tasks] for rate in complete])


def jackknife(above: np.ndarray, below: np.ndarray) -> float:
    """Standard error of mean(above) / mean(below), of paired samples [n]."""
    n = len(above)
    if n < 2:
        return float("nan")
    without = (above.sum() - above) / (below.sum() - below)
    return float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))


def seconds_per_step(rows: Iterable[Row]) -> dict[str, float]:
    """By optimizer, from the row of the timing protocol; empty without one."""
    return next((dict(row["seconds"]) for row in rows if row["optimizer"] == "timing"), {})


def timed(rows: Iterable[Row]) -> list[Row]:
    """The unrolls, with the seconds per step of the protocol in place of each one's own, which others disturbed."""
    rows = list(rows)
    seconds = seconds_per_step(rows)
    unrolls = (row for row in rows if row["optimizer"] != "timing")
    return [{**row, "seconds_per_step": seconds.get(row["optimizer"], row["seconds_per_step"])} for row in unrolls]
