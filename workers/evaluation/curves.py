"""The learning curves that stand for an optimizer in pictures."""

from collections.abc import Iterable, Sequence

import numpy as np

from workers.evaluation.comparison import LEARNED, Comparison, of_theta
from workers.evaluation.results import UnrollResult
from workers.evaluation.scores import Scores, setting_of


def best_unrolls(unrolls: Iterable[UnrollResult], optimizer: str, comparison: Comparison) -> list[UnrollResult]:
    """The unrolls of an optimizer on the compared tasks: all of the learned one, a baseline's at each task's best rate."""
    shown = of_theta(unrolls, comparison.theta_sha256)
    own = [
        u for u in shown if u.optimizer == optimizer and u.task in comparison.tasks and u.outer_split == "outer_test"
    ]
    baseline = comparison.baseline(optimizer)
    if optimizer == LEARNED or baseline is None:
        return own
    best = dict(zip(comparison.tasks, baseline.best, strict=True))
    return [u for u in own if setting_of(u) == best[u.task]]


def mean_curves(unrolls: Sequence[UnrollResult], split: str, axis: str = "steps") -> tuple[np.ndarray, np.ndarray]:
    """x [n] and the losses [initialisations, n], each the mean over the tasks that every initialisation has run.

    Args:
      axis: what x is: inner "steps", or "seconds".
    """
    steps = np.asarray(max((u.steps for u in unrolls), key=len), dtype=float)
    cells = {(u.initialisation, u.task): np.interp(steps, u.steps, u.curves.of(split)) for u in unrolls}
    starts = sorted({start for start, _ in cells})
    tasks = set.intersection(*({task for s, task in cells if s == start} for start in starts))
    losses = [np.mean([cells[start, task] for task in sorted(tasks)], axis=0) for start in starts]
    scale = float(np.median([u.seconds_per_step for u in unrolls])) if axis == "seconds" else 1.0
    return steps * scale, np.asarray(losses)


def final_unrolls(unrolls: Iterable[UnrollResult], optimizer: str, scores: Scores) -> list[UnrollResult]:
    """The unrolls that the scores of an optimizer are about: one on each task, from the first initialisation."""
    chosen = {(one.task, one.setting) for one in scores.per_task if one.optimizer == optimizer}
    own = (u for u in unrolls if u.optimizer == optimizer and u.initialisation == 0 and u.scored)
    by_task = {u.task: u for u in own if u.outer_split == "outer_test" and (u.task, setting_of(u)) in chosen}
    return [by_task[task] for task in sorted(by_task)]


def trailing_curve(unrolls: Sequence[UnrollResult], axis: str = "steps") -> tuple[np.ndarray, np.ndarray]:
    """x [n], inner "steps" or "seconds", and the trailing mean loss [n] of the objective, a mean over the unrolls."""
    steps = max((u.trailing()[0] for u in unrolls), key=len).astype(float)
    losses = np.mean([np.interp(steps, *u.trailing()) for u in unrolls], axis=0)
    scale = float(np.median([u.seconds_per_step for u in unrolls])) if axis == "seconds" else 1.0
    return steps * scale, losses
