"""The comparison with tuned baselines, against numbers worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import run_files

from common.config import Config, EvaluationConfig
from workers.evaluation.comparison import compare, jackknife, newest_theta, read_evaluation, summarise
from workers.evaluation.results import UnrollResult
from workers.evaluation.tuning import Setting

GRID = EvaluationConfig(rate_low=0.01, rate_high=1.0, rate_count=3)  # 0.01, 0.1, 1


def result(
    optimizer: str, rate: float | None, task: int, loss: float, start: int = 0, version: int | None = None
) -> UnrollResult:
    digest = None if version is None else f"sha-{version}"
    return run_files.constant_result(
        optimizer, task, loss, rate=rate, initialisation=start, version=version, theta_sha256=digest
    )


def learned(losses: list[float], version: int = 7) -> list[UnrollResult]:
    return [result("learned", None, task, loss, version=version) for task, loss in enumerate(losses)]


def tuned(table: dict[float, list[float]], name: str = "adam") -> list[UnrollResult]:
    return [result(name, rate, task, loss) for rate, losses in table.items() for task, loss in enumerate(losses)]


ADAM = tuned({0.01: [1.0, 4.0], 0.1: [2.0, 2.0], 1.0: [3.0, 1.5]})
LEARNED = learned([0.5, 2.0])


def compared(unrolls: list[UnrollResult], objective: str = "train", theta: str | None = "sha-7"):
    comparison = compare(unrolls, objective, GRID, theta)
    assert comparison is not None
    return comparison


def test_baseline_is_tuned_per_task_and_with_one_rate() -> None:
    [baseline] = compared(LEARNED + ADAM).baselines
    assert baseline.per_task.tolist() == [1.0, 1.5]
    assert baseline.best == (Setting(0.01), Setting(1.0))
    assert baseline.single.tolist() == [2.0, 2.0] and baseline.single_rate == 0.1
    assert baseline.fine is None and baseline.inside_grid == 0


def test_rates_off_the_grid_count_for_the_finer_grid_only() -> None:
    [baseline] = compared(LEARNED + ADAM + tuned({10**-1.5: [0.2, 9.0]})).baselines
    assert baseline.per_task.tolist() == [1.0, 1.5] and baseline.single_rate == 0.1
    assert baseline.fine is not None and baseline.fine.tolist() == [0.2, 1.5]


def test_rate_close_to_the_grid_is_not_on_it() -> None:
    [baseline] = compared(LEARNED + ADAM + tuned({0.010001: [0.2, 0.2]})).baselines
    assert baseline.per_task.tolist() == [1.0, 1.5]


def test_losses_of_the_objective_are_compared() -> None:
    valid = [replace(u, means=u.means._replace(valid=u.means.train + 1)) for u in LEARNED + ADAM]
    assert compared(valid, "valid").learned.tolist() == [1.5, 3.0]


def test_comparison_is_about_one_theta_on_common_tasks() -> None:
    old, new = learned([9.0, 9.0], version=3), learned([0.5, 2.0, 4.0])
    comparison = compared(old + new + ADAM)
    assert (comparison.version, comparison.tasks) == (7, (0, 1))
    assert comparison.learned.tolist() == [0.5, 2.0]
    assert compared(old + new + ADAM, theta="sha-3").learned.tolist() == [9.0, 9.0]


def test_other_initialisations_do_not_change_the_comparison() -> None:
    extra = [result("learned", None, 0, 100.0, start=1, version=7), result("adam", 0.01, 0, 0.001, start=1)]
    comparison = compared(LEARNED + ADAM + extra)
    assert comparison.learned.tolist() == [0.5, 2.0] and comparison.baselines[0].per_task.tolist() == [1.0, 1.5]


def test_rate_that_lacks_a_task_is_left_out() -> None:
    comparison = compared(LEARNED + ADAM + tuned({10**-0.5: [0.1]}))
    assert comparison.tasks == (0, 1) and comparison.baselines[0].fine is None


@pytest.mark.parametrize("cut_first", [True, False])
def test_complete_unroll_outweighs_one_cut_short(cut_first: bool) -> None:
    cut = [replace(result("adam", 0.1, 1, 0.1), stopped=10)]
    unrolls = cut + ADAM if cut_first else ADAM + cut
    assert compared(LEARNED + unrolls).baselines[0].per_task.tolist() == [1.0, 1.5]


@pytest.mark.parametrize(
    "unrolls",
    [
        [],
        ADAM,
        learned([1.0]),
        learned([1.0, 2.0]) + [replace(u, outer_split="outer_train") for u in ADAM],
        [replace(u, task=u.task + 50) for u in learned([1.0])] + ADAM,
    ],
    ids=["nothing", "no learned", "no baseline", "no unseen", "no common task"],
)
def test_incomparable_unrolls_give_no_comparison(unrolls: list[UnrollResult]) -> None:
    assert compare(unrolls, "train", GRID, "sha-7") is None


def test_newest_theta_is_that_of_the_highest_version() -> None:
    choosing = [replace(u, outer_split="outer_train") for u in learned([1.0], 9)]
    assert newest_theta(learned([1.0], 7) + learned([1.0], 3) + choosing) == "sha-7"
    assert newest_theta(ADAM) is None


def test_newest_theta_without_versions_is_the_one_asked_for() -> None:
    unrolls = [replace(u, version=None, theta_sha256=d) for d in "ab" for u in LEARNED]
    assert [newest_theta(unrolls, asked) for asked in ("a", "b", "c", None)] == ["a", "b", "b", "b"]


def test_task_scores_are_the_columns_of_a_baseline() -> None:
    comparison = compared(LEARNED + ADAM)
    first, second = comparison.task_scores(comparison.baselines[0])
    assert first == (0, 0.5, 1.0, Setting(0.01), 2.0, None) and second == (1, 2.0, 1.5, Setting(1.0), 2.0, None)


def test_summary_has_the_three_ways_to_tune() -> None:
    adam = tuned({0.01: [2.0, 3.0], 0.1: [1.0, 1.6], 1.0: [1.2, 1.0]})
    summary = summarise(compared(learned([0.8, 1.1]) + adam), "adam")
    assert summary is not None and (summary.tasks, summary.wins, summary.inside_grid) == (2, 1, 1)
    assert summary.learned_mean == pytest.approx(0.95)
    assert summary.baseline_mean == pytest.approx(1.1)  # rate 1 on both
    assert summary.baseline_per_task_mean == pytest.approx(1.0)  # 0.1 on the first, 1 on the second
    assert summary.ratio == pytest.approx(0.95)
    assert summary.ratio_fine is None and summary.wins_fine is None and summary.baseline_fine_per_task_mean is None


def test_summary_of_the_finer_grid_only_adds_rates() -> None:
    adam = tuned({0.01: [2.0, 3.0], 0.1: [1.0, 1.6], 1.0: [1.2, 1.0], 0.0316228: [0.7, 2.0]})
    summary = summarise(compared(learned([0.8, 1.1]) + adam), "adam")
    assert summary is not None and summary.wins_fine == 0
    assert summary.baseline_fine_per_task_mean == pytest.approx(0.85)
    assert summary.ratio_fine == pytest.approx(0.95 / 0.85)
    assert summary.ratio == pytest.approx(0.95) and summary.baseline_mean == pytest.approx(1.1)


def test_summary_of_a_baseline_that_was_not_run_is_none() -> None:
    assert summarise(compared(LEARNED + ADAM), "sgd") is None


def test_ratio_error_is_the_jackknifes() -> None:
    random = np.random.default_rng(0)
    below = random.uniform(1, 2, 50)
    assert jackknife(3 * below, below) == pytest.approx(0, abs=1e-12)
    above = below + random.normal(0, 0.1, 50)
    ratio = above.mean() / below.mean()
    linear = np.std(above - ratio * below, ddof=1) / np.sqrt(50) / below.mean()
    assert jackknife(above, below) == pytest.approx(linear, rel=0.02)
    assert jackknife(above[:1], below[:1]) is None


def test_evaluation_of_theta_files_follows_the_last_summary(tmp_path: Path) -> None:
    unrolls = [replace(u, name=d + u.name, version=None, theta_sha256=d) for d in "ab" for u in LEARNED]
    text = "".join(json.dumps(u.to_json()) + "\n" for u in unrolls + ADAM)
    (tmp_path / "unrolls.jsonl").write_text(text)
    for summary, expected in (('{"theta_sha256": "a"}', "a"), ("{}", "b"), ("torn {", "b")):
        (tmp_path / "summary.json").write_text(summary)
        comparison = read_evaluation(tmp_path, Config(evaluation=GRID)).comparison
        assert comparison is not None and comparison.theta_sha256 == expected
