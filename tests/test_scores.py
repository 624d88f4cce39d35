"""Scores of an evaluation: numbers that a person can check by hand."""

import numpy as np
import pytest

from common.config import Config, EvaluationConfig
from workers.evaluation import scores

CONFIG = Config(evaluation=EvaluationConfig(tasks=2, rate_count=3, rate_low=0.01, rate_high=1.0))


def row(optimizer, task, loss, rate=None, initialisation=0, **more):
    return {
        "optimizer": optimizer,
        "task": task,
        "rate": rate,
        "initialisation": initialisation,
        "outer_split": "outer_test",
        "theta_sha256": "own" if optimizer == "learned" else None,
        "mean_train": loss,
        "seconds_per_step": 9.0,
        **more,
    }


def rows():
    grid = {0.01: (2.0, 3.0), 0.1: (1.0, 1.6), 1.0: (1.2, 1.0)}
    adam = [row("adam", task, loss, rate) for rate, pair in grid.items() for task, loss in enumerate(pair)]
    learned = [row("learned", 0, 0.8), row("learned", 1, 1.1)]
    elsewhere = [row("learned", 0, 9.0, theta_sha256="other"), row("adam", 0, 0.1, 0.1, initialisation=1)]
    return [*adam, *learned, *elsewhere, row("learned", 1, 0.0, outer_split="outer_train")]


def test_the_three_ways_to_tune():
    summary = scores.summarise(rows(), CONFIG, "own")
    assert summary["tasks"] == 2
    assert summary["learned_mean"] == pytest.approx(0.95)
    assert summary["baseline_mean"] == pytest.approx(1.1)  # rate 1 on both
    assert summary["baseline_per_task_mean"] == pytest.approx(1.0)  # 0.1 on the first, 1 on the second
    assert summary["ratio"] == pytest.approx(0.95) and summary["wins"] == 1
    assert summary["inside_grid"] == 1
    assert summary["ratio_fine"] is None and summary["baseline_fine_per_task_mean"] is None


def test_the_finer_grid_only_adds_rates():
    fine = [row("adam", task, loss, 0.0316228) for task, loss in enumerate((0.7, 2.0))]
    summary = scores.summarise(rows() + fine, CONFIG, "own")
    assert summary["baseline_fine_per_task_mean"] == pytest.approx(0.85)
    assert summary["ratio_fine"] == pytest.approx(0.95 / 0.85) and summary["wins_fine"] == 0
    assert summary["ratio"] == pytest.approx(0.95) and summary["baseline_mean"] == pytest.approx(1.1)


def test_a_rate_that_was_cut_short_is_never_the_best():
    cut = row("adam", 0, 0.5, 0.0316228, stopped=10)
    assert scores.best_rates([*rows(), cut], "adam", "train") == {0: 0.1, 1: 1.0}


def test_another_objective_is_compared_when_asked():
    tree = CONFIG.__class__(
        evaluation=CONFIG.evaluation,
        estimator=CONFIG.estimator.__class__(objective="valid", outer_batches=1),
    )
    valid = [{**r, "mean_valid": 10 * r["mean_train"]} for r in rows()]
    assert scores.summarise(valid, tree, "own")["learned_mean"] == pytest.approx(9.5)


def test_the_error_of_a_ratio_is_the_jackknifes():
    random = np.random.default_rng(0)
    below = random.uniform(1, 2, 50)
    assert scores.jackknife(3 * below, below) == pytest.approx(0, abs=1e-12)
    above = below + random.normal(0, 0.1, 50)
    ratio = above.mean() / below.mean()
    linear = np.std(above - ratio * below, ddof=1) / np.sqrt(50) / below.mean()
    assert scores.jackknife(above, below) == pytest.approx(linear, rel=0.02)


def test_times_of_the_protocol_replace_each_runs_own():
    timing = {"optimizer": "timing", "outer_split": "none", "seconds": {"adam": 0.5}}
    timed = scores.timed([*rows(), timing])
    assert len(timed) == len(rows())
    assert {r["seconds_per_step"] for r in timed if r["optimizer"] == "adam"} == {0.5}
    assert {r["seconds_per_step"] for r in timed if r["optimizer"] == "learned"} == {9.0}
    assert scores.seconds_per_step(rows()) == {}
