"""A learned optimizer against tuned baselines: evaluation/unrolls.jsonl in, the numbers of table and pictures out.

An *unroll* is one line of an evaluation file: one optimizer at one rate on one task from one initialisation. Means are
compared on the first initialisation, which every rate has run; the others are for the bands of the curves. A baseline
is compared three ways: with the best rate of each task, with the best single rate, and with the best rate of each task
of all that were tried (the grid twice as fine, if it was run). `--json` has the same numbers (`workers/evaluation/scores.py`).
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import jsonlines
from common.config import EvaluationConfig
from workers.evaluation.scores import timed

Unroll = Mapping[str, Any]
FILE = "unrolls.jsonl"
Setting = tuple[float | None, str | None]  # learning rate, sha256 of other hyper-parameters
Losses = dict[int, float]  # by task


class Baseline(NamedTuple):
    """One baseline on the tasks of the comparison; losses are means over the steps."""

    optimizer: str
    per_task: np.ndarray  # [tasks] loss at the best rate of each task
    best: tuple[Setting, ...]  # [tasks] which setting that is
    single: np.ndarray  # [tasks] loss at the best single rate
    single_rate: float | None
    fine: np.ndarray | None  # [tasks] loss at the best of all rates tried; None: no rate beyond the grid


class Comparison(NamedTuple):
    """The learned optimizer and every baseline on the same tasks from the same initialisation."""

    objective: str  # "train" or "valid": which loss is compared
    version: int | None  # of theta
    theta_sha256: str
    tasks: tuple[int, ...]
    learned: np.ndarray  # [tasks]
    baselines: tuple[Baseline, ...]


def read_unrolls(run_dir: Path) -> list[Unroll]:
    """Every unroll of a run's evaluations, the last one of each item, with the seconds per step that were timed."""
    lines = jsonlines.read(run_dir / "evaluation" / FILE)
    return timed({(line["optimizer"], line["theta_sha256"], line["item"]): line for line in lines}.values())


def read_theta(run_dir: Path) -> str | None:
    """Sha256 of the theta that the run's last evaluation was about; None before there is one."""
    path = run_dir / "evaluation" / "summary.json"
    return json.loads(path.read_text())["theta_sha256"] if path.exists() else None


def newest(unrolls: Iterable[Unroll], theta: str | None = None) -> list[Unroll]:
    """The unrolls of the baselines, and those of one learned optimizer: of the newest version.

    Files of theta have no version: of theirs it is `theta`, else the one that was evaluated first last.
    """
    unrolls = list(unrolls)
    learned = [u for u in unrolls if u["optimizer"] == "learned"]
    last = max((u["version"] for u in learned if u["version"] is not None), default=None)
    known = [u["theta_sha256"] for u in learned if u["version"] == last]
    chosen = theta if theta in known else known[-1] if known else None
    return [u for u in unrolls if u["optimizer"] != "learned" or (u["version"], u["theta_sha256"]) == (last, chosen)]


def compare(
    unrolls: Iterable[Unroll], objective: str, grid: EvaluationConfig, theta: str | None = None
) -> Comparison | None:
    """Compare on the tasks that every optimizer has run; None if nothing can be compared. `theta`: as for `newest`."""
    first = [u for u in newest(unrolls, theta) if u["outer_split"] == "outer_test" and u["initialisation"] == 0]
    learned = [u for u in first if u["optimizer"] == "learned"]
    tables = {name: _losses(first, name, objective) for name in {u["optimizer"] for u in first}}
    if not learned or len(tables) < 2:
        return None
    tasks = tuple(sorted(set.intersection(*(set(_all_settings(table)) for table in tables.values()))))
    if not tasks:
        return None
    means = {name: _complete(table, tasks) for name, table in tables.items()}
    baselines = tuple(_baseline(name, means[name], grid) for name in sorted(means) if name != "learned")
    version, digest = learned[0]["version"], learned[0]["theta_sha256"]
    return Comparison(objective, version, digest, tasks, means["learned"][None, digest], baselines)


def best_unrolls(unrolls: Iterable[Unroll], optimizer: str, comparison: Comparison) -> list[Unroll]:
    """The unrolls whose curves stand for an optimizer: all of the learned one, a baseline's at each task's best rate."""
    shown = newest(unrolls, comparison.theta_sha256)
    own = [u for u in shown if u["optimizer"] == optimizer and u["task"] in comparison.tasks]
    if optimizer == "learned":
        return own
    baseline = next(b for b in comparison.baselines if b.optimizer == optimizer)
    best = dict(zip(comparison.tasks, baseline.best, strict=True))
    return [u for u in own if _setting(u) == best[u["task"]]]


def curves(unrolls: list[Unroll], split: str, axis: str = "steps") -> tuple[np.ndarray, np.ndarray]:
    """x [n] (inner steps, or seconds) and the loss [initialisations, n], each a mean over the tasks all of them ran."""
    steps = np.asarray(max((u["steps"] for u in unrolls), key=len), dtype=float)
    cells = {(u["initialisation"], u["task"]): np.interp(steps, u["steps"], u[split]) for u in unrolls}
    starts = sorted({start for start, _ in cells})
    tasks = set.intersection(*({task for s, task in cells if s == start} for start in starts))
    rows = [np.mean([cells[start, task] for task in sorted(tasks)], axis=0) for start in starts]
    scale = float(np.median([u["seconds_per_step"] for u in unrolls])) if axis == "seconds" else 1.0
    return steps * scale, np.asarray(rows)


def _setting(unroll: Unroll) -> Setting:
    return unroll["rate"], unroll["theta_sha256"]


def _losses(unrolls: list[Unroll], name: str, objective: str) -> dict[Setting, Losses]:
    table: dict[Setting, Losses] = {}
    for u in unrolls:
        if u["optimizer"] == name:
            table.setdefault(_setting(u), {})[u["task"]] = u[f"mean_{objective}"]
    return table


def _all_settings(table: dict[Setting, Losses]) -> set[int]:
    """The tasks that the most complete settings have run."""
    most = max(map(len, table.values()))
    return set.intersection(*(set(losses) for losses in table.values() if len(losses) == most))


def _complete(table: dict[Setting, Losses], tasks: tuple[int, ...]) -> dict[Setting, np.ndarray]:
    """Losses [tasks] of the settings that ran all of them."""
    return {s: np.asarray([losses[t] for t in tasks]) for s, losses in table.items() if losses.keys() >= set(tasks)}


def _baseline(name: str, means: dict[Setting, np.ndarray], grid: EvaluationConfig) -> Baseline:
    settings = sorted(means, key=lambda s: (s[0] or 0.0, s[1] or ""))
    coarse = [s for s in settings if _on_grid(s[0], grid)] or settings
    losses = np.asarray([means[s] for s in coarse])  # [settings, tasks]
    single = int(losses.mean(axis=1).argmin())
    return Baseline(
        optimizer=name,
        per_task=losses.min(axis=0),
        best=tuple(coarse[i] for i in losses.argmin(axis=0)),
        single=losses[single],
        single_rate=coarse[single][0],
        fine=np.min([means[s] for s in settings], axis=0) if len(coarse) < len(settings) else None,
    )


def _on_grid(rate: float | None, grid: EvaluationConfig) -> bool:
    points = np.geomspace(grid.rate_low, grid.rate_high, grid.rate_count)
    return rate is None or bool(np.isclose(np.log(rate), np.log(points), atol=1e-3).any())
