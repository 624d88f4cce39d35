"""The comparison of a learned optimizer with tuned baselines, which `--json`, the table and the report page show.

Means are compared from the first initialisation, which every setting has run; the others are for the bands of the
curves. A baseline is compared three ways: at the best rate of each task, at the best single rate, and at the best rate
of each task of all that were run (the grid twice as fine, where it was). A rate is on the grid if the grid of the
configuration has exactly this rate.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.config import Config, EvaluationConfig
from workers.evaluation import results
from workers.evaluation.pooling import in_one_pool, over_seeds
from workers.evaluation.results import UnrollResult
from workers.evaluation.scores import LEARNED as LEARNED
from workers.evaluation.scores import Scores, score, setting_of
from workers.evaluation.tuning import LossTable, Setting, grid_rates

SUMMARY = "summary.json"  # of the last evaluation or training
Losses = dict[int, UnrollResult]  # by task


class TaskScore(NamedTuple):
    """The learned optimizer and one baseline on one task: mean losses over the steps."""

    task: int
    learned: float
    best: float  # the baseline at its best rate for the task
    best_setting: Setting
    single: float  # the baseline at its best single rate
    fine: float | None  # the baseline at the best of all rates; None: no rate beyond the grid


class Baseline(NamedTuple):
    """One baseline on the tasks of the comparison. Losses are means over the steps."""

    optimizer: str
    per_task: np.ndarray  # [tasks] loss at the best rate of each task
    best: tuple[Setting, ...]  # [tasks] these rates
    single: np.ndarray  # [tasks] loss at the best single rate
    single_rate: float | None
    fine: np.ndarray | None  # [tasks] loss at the best of all rates that were run; None: no rate beyond the grid
    inside_grid: int  # tasks whose best rate is at neither end of the grid


class Comparison(NamedTuple):
    """The learned optimizer and every baseline on the same tasks, from the same initialisation."""

    objective: str  # "train" or "valid": whose loss is compared
    version: int | None  # of theta
    theta_sha256: str
    tasks: tuple[int, ...]
    learned: np.ndarray  # [tasks]
    baselines: tuple[Baseline, ...]
    scores: Scores | None = None  # None: an optimizer has no complete unroll of a task

    def baseline(self, name: str) -> Baseline | None:
        return next((b for b in self.baselines if b.optimizer == name), None)

    def task_scores(self, baseline: Baseline) -> list[TaskScore]:
        fine = [None] * len(self.tasks) if baseline.fine is None else baseline.fine.tolist()
        columns = (self.learned.tolist(), baseline.per_task.tolist(), baseline.best, baseline.single.tolist(), fine)
        return [TaskScore(*row) for row in zip(self.tasks, *columns, strict=True)]


class Evaluation(NamedTuple):
    """All unrolls of a run, and what they say; a command reads it once."""

    unrolls: Sequence[UnrollResult]
    comparison: Comparison | None  # None: there is nothing to compare yet
    others: tuple[tuple[str, Comparison], ...] = ()  # of more learned optimizers on the same tasks, with their names
    pooled: Scores | None = None  # of these as a single one that was trained with several seeds


def read_evaluation(
    folder: Path,
    config: Config,
    theta_sha256: str | None = None,
    several: Mapping[str, str] | None = None,
    *,
    pool: bool | None = None,
) -> Evaluation:
    """The evaluation of a run, compared on the run's objective.

    Args:
      folder: `evaluation` of the run directory.
      theta_sha256: which learned theta; by default the newest, of equals the one of the last summary.
      several: digests of the thetas of several learned optimizers by name, which are compared as well; by default those
        of the last summary.
      pool: whether these are also scored as a single one; by default whether the last summary has it.
    """
    unrolls, summary = results.read(folder), _summary_in(folder)
    several = _several_of(summary) if several is None else several
    digest = summary.get("theta_sha256")
    theta = theta_sha256 or newest_theta(unrolls, digest if isinstance(digest, str) else None)
    objective, grid = config.estimator.objective, config.evaluation
    others = {name: compare(unrolls, objective, grid, digest) for name, digest in several.items()}
    scores = in_one_pool(
        {name: one.scores for name, one in others.items() if one is not None and one.scores is not None}
    )
    found = tuple((name, one._replace(scores=scores.get(name))) for name, one in others.items() if one is not None)
    own = next((one for _, one in found if one.theta_sha256 == theta), None)
    wanted = "pooled" in summary if pool is None else pool
    pooled = pooled_scores([one for _, one in found]) if wanted else None
    return Evaluation(unrolls, own or compare(unrolls, objective, grid, theta), found, pooled)


def pooled_scores(comparisons: Sequence[Comparison]) -> Scores | None:
    """The scores of several learned optimizers as a single one; None where they cannot be scored together."""
    scores = [one.scores for one in comparisons if one.scores is not None]
    return over_seeds(scores, comparisons[0].objective) if scores and len(scores) == len(comparisons) else None


def _summary_in(folder: Path) -> Mapping[str, Any]:
    """What --json printed last; empty where there is none, or it is corrupt."""
    try:
        summary = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _several_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the thetas that were compared in one command, by name."""
    listed = summary.get("optimizers")
    numbers = listed if isinstance(listed, dict) else {}
    digests = {name: one.get("theta_sha256") for name, one in numbers.items() if isinstance(one, dict)}
    return {name: digest for name, digest in digests.items() if isinstance(digest, str)}


def newest_theta(unrolls: Iterable[UnrollResult], among_equals: str | None = None) -> str | None:
    """Digest of the learned theta with the highest version; None where no unroll is of a learned one.

    Theta files have no version: of several, `among_equals` is taken if it is one of them, else the last one to appear.
    """
    learned = [u for u in unrolls if u.optimizer == LEARNED and u.outer_split == "outer_test"]
    last = max((u.version for u in learned if u.version is not None), default=None)
    digests = [u.theta_sha256 for u in learned if u.version == last]
    return among_equals if among_equals in digests else digests[-1] if digests else None


def compare(
    unrolls: Iterable[UnrollResult], objective: str, grid: EvaluationConfig, theta: str | None
) -> Comparison | None:
    """Compares on the tasks that every optimizer has run; None where there are none.

    Args:
      theta: digest of the learned theta.
    """
    own_unrolls = of_theta(unrolls, theta)
    first = [u for u in own_unrolls if u.outer_split == "outer_test" and u.initialisation == 0]
    learned = [u for u in first if u.optimizer == LEARNED]
    tables = {name: _by_setting(first, name) for name in {u.optimizer for u in first}}
    if theta is None or not learned or len(tables) < 2:
        return None
    tasks = tuple(sorted(set.intersection(*(_tasks_of_complete_settings(table) for table in tables.values()))))
    if not tasks:
        return None
    own = _table(tables.pop(LEARNED), tasks, objective)
    rates = set(grid_rates(grid))
    baselines = tuple(_baseline(name, _table(tables[name], tasks, objective), rates) for name in sorted(tables))
    scores = score(own_unrolls, tasks, objective)
    return Comparison(objective, learned[0].version, theta, tasks, own.losses[0], baselines, scores)


def of_theta(unrolls: Iterable[UnrollResult], theta_sha256: str | None) -> list[UnrollResult]:
    """The unrolls of the baselines, and those of one learned theta."""
    return [u for u in unrolls if u.optimizer != LEARNED or u.theta_sha256 == theta_sha256]


def _by_setting(unrolls: Iterable[UnrollResult], name: str) -> dict[Setting, Losses]:
    """Of two unrolls of a setting on a task the later one, but never one that was cut short for one that was not."""
    table: dict[Setting, Losses] = {}
    for u in unrolls:
        if u.optimizer == name:
            losses = table.setdefault(setting_of(u), {})
            if u.stopped is None or u.task not in losses or losses[u.task].stopped is not None:
                losses[u.task] = u
    return table


def _tasks_of_complete_settings(table: dict[Setting, Losses]) -> set[int]:
    """The tasks that all of the most complete settings have run."""
    most = max(map(len, table.values()))
    return set.intersection(*(set(losses) for losses in table.values() if len(losses) == most))


def _table(by_setting: dict[Setting, Losses], tasks: Sequence[int], objective: str) -> LossTable:
    """The settings that ran all of the tasks."""
    complete = [setting for setting, losses in by_setting.items() if losses.keys() >= set(tasks)]
    settings = tuple(sorted(complete, key=lambda s: (s.rate or 0.0, s.theta_sha256 or "", s.decay, s.schedule)))
    losses = [[by_setting[setting][task].mean(objective) for task in tasks] for setting in settings]
    return LossTable(settings, np.array(losses))


def _baseline(name: str, every: LossTable, rates: set[float]) -> Baseline:
    """Args: every: all settings; rates: those of the grid, to which all but the finer comparison are limited."""
    on_grid = [i for i, setting in enumerate(every.settings) if setting.rate is None or setting.rate in rates]
    chosen = on_grid or list(range(len(every.settings)))
    grid = LossTable(tuple(every.settings[i] for i in chosen), every.losses[chosen])
    single = grid.single()
    return Baseline(
        optimizer=name,
        per_task=grid.best(),
        best=grid.best_settings(),
        single=grid.losses[single],
        single_rate=grid.settings[single].rate,
        fine=every.best() if len(chosen) < len(every.settings) else None,
        inside_grid=grid.tasks_inside(),
    )


class Summary(NamedTuple):
    """The learned optimizer against one baseline: the numbers of `--json` and of summary.json."""

    objective: str
    baseline: str
    tasks: int
    learned_mean: float
    baseline_mean: float  # at the best single rate
    baseline_per_task_mean: float  # at the best rate of each task
    baseline_fine_per_task_mean: float | None  # the same, grid twice as fine; None: it was not run
    ratio: float  # learned over baseline at the best rate of each task
    ratio_error: float | None  # its standard error over tasks (jackknife); None for a single task
    ratio_fine: float | None
    wins: int  # tasks on which the learned loss is lower than that at the best rate of the task
    wins_fine: int | None
    inside_grid: int  # tasks whose best rate is at neither end of the grid
    theta_sha256: str

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


def summarise(comparison: Comparison, name: str) -> Summary | None:
    """None where the comparison has no such baseline."""
    baseline, learned = comparison.baseline(name), comparison.learned
    if baseline is None:
        return None
    best, fine = baseline.per_task, baseline.fine
    return Summary(
        objective=comparison.objective,
        baseline=name,
        tasks=len(comparison.tasks),
        learned_mean=float(learned.mean()),
        baseline_mean=float(baseline.single.mean()),
        baseline_per_task_mean=float(best.mean()),
        baseline_fine_per_task_mean=None if fine is None else float(fine.mean()),
        ratio=float(learned.mean() / best.mean()),
        ratio_error=jackknife(learned, best),
        ratio_fine=None if fine is None else float(learned.mean() / fine.mean()),
        wins=wins(learned, best),
        wins_fine=None if fine is None else wins(learned, fine),
        inside_grid=baseline.inside_grid,
        theta_sha256=comparison.theta_sha256,
    )


def wins(learned: np.ndarray, other: np.ndarray) -> int:
    """On how many tasks the learned optimizer has the lower loss."""
    return int((learned < other).sum())


def jackknife(above: np.ndarray, below: np.ndarray) -> float | None:
    """Standard error of mean(above) / mean(below), of paired samples [n]; None for fewer than two, and where not finite."""
    n = len(above)
    if n < 2:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (above.sum() - above) / (below.sum() - below)
        error = float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))
    return error if np.isfinite(error) else None
