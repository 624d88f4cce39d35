"""The curves that stand for an optimizer in pictures."""

import numpy as np
from helpers import run_files

from common.config import EvaluationConfig
from workers.evaluation.comparison import compare
from workers.evaluation.curves import best_unrolls, mean_curves
from workers.evaluation.results import BySplit, UnrollResult

GRID = EvaluationConfig(rate_low=0.01, rate_high=1.0, rate_count=2)


def result(optimizer: str, task: int, loss: float, start: int = 0, rate: float | None = None) -> UnrollResult:
    line = (2 * loss, loss, loss / 2)
    digest = "sha" if optimizer == "learned" else None
    more = {"theta_sha256": digest, "steps": (0, 10, 20), "curves": BySplit(line, line, line)}
    return run_files.constant_result(optimizer, task, loss, rate=rate, initialisation=start, **more)


def test_mean_curves_use_tasks_that_every_start_has_run() -> None:
    unrolls = [result("learned", t, loss, s) for t, s, loss in ((0, 0, 1.0), (1, 0, 3.0), (0, 1, 5.0))]
    x, losses = mean_curves(unrolls, "train", "seconds")
    assert x.tolist() == [0, 5, 10]
    assert losses.tolist() == [[2.0, 1.0, 0.5], [10.0, 5.0, 2.5]]


def test_best_unrolls_are_those_at_each_tasks_best_rate() -> None:
    grid = {0.01: (1.0, 4.0), 1.0: (3.0, 1.5)}
    unrolls = [result("adam", task, loss, rate=rate) for rate, pair in grid.items() for task, loss in enumerate(pair)]
    unrolls += [result("learned", task, 0.5) for task in range(2)]
    comparison = compare(unrolls, "train", GRID, "sha")
    assert comparison is not None
    chosen = best_unrolls(unrolls, "adam", comparison)
    assert sorted((u.task, u.rate) for u in chosen) == [(0, 0.01), (1, 1.0)]
    assert np.allclose(mean_curves(chosen, "train")[1], [[2.5, 1.25, 0.625]])


def test_best_unrolls_of_the_learned_are_of_the_compared_theta() -> None:
    unrolls = [result("adam", 0, 1.0, rate=0.01), result("adam", 0, 2.0, rate=1.0), result("learned", 0, 0.5)]
    comparison = compare(unrolls, "train", GRID, "sha")
    assert comparison is not None
    other = [run_files.constant_result("learned", 0, 9.0, theta_sha256="other")]
    assert best_unrolls(other + unrolls, "learned", comparison) == unrolls[2:]
