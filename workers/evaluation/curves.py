"""The learning curves that stand for an optimizer in pictures."""

from collections.abc import Iterable, Sequence

import numpy as np

from workers.evaluation.comparison import LEARNED, Comparison, of_theta, setting_of
from workers.evaluation.results import UnrollResult


def best_unrolls(unrolls: Iterable[UnrollResult], optimizer: str, comparison: Comparison) -> list[UnrollResult]:
    """The unrolls of an optimizer on the compared tasks: all of the learned one, a baseline's at each task's best rate."""
    shown = of_theta(unrolls, comparison.theta_sha256)
    own = [u for u in shown if u.optimizer == optimizer and u.task in comparison.tasks]
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
