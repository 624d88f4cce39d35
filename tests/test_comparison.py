"""The comparison with tuned baselines, against numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import run_files

from common.config import Config, EvaluationConfig
from workers.evaluation.comparison import best_unrolls, compare, curves, read_unrolls
from workers.evaluation.scores import summarise

GRID = EvaluationConfig(rate_low=0.01, rate_high=1.0, rate_count=3)  # 0.01, 0.1, 1


def line(
    optimizer: str, rate: float | None, task: int, loss: float, start: int = 0, version: int | None = None
) -> dict:
    return {
        "item": f"{optimizer}/{rate}/{task}/{start}",
        "optimizer": optimizer,
        "theta_sha256": None if version is None else f"sha-{version}",
        "rate": rate,
        "task": task,
        "initialisation": start,
        "outer_split": "outer_test",
        "version": version,
        "steps": [0, 10, 20],
        "train": [2 * loss, loss, loss / 2],
        "mean_train": loss,
        "mean_valid": loss + 1,
        "seconds_per_step": 0.5,
    }


def learned(losses: list[float], version: int = 7) -> list[dict]:
    return [line("learned", None, task, loss, version=version) for task, loss in enumerate(losses)]


def adam(table: dict[float, list[float]]) -> list[dict]:
    return [line("adam", rate, task, loss) for rate, losses in table.items() for task, loss in enumerate(losses)]


ADAM = adam({0.01: [1.0, 4.0], 0.1: [2.0, 2.0], 1.0: [3.0, 1.5]})


def test_best_rate_of_each_task_and_best_single_rate() -> None:
    comparison = compare(learned([0.5, 2.0]) + ADAM, "train", GRID)
    assert comparison is not None
    [baseline] = comparison.baselines
    assert baseline.per_task.tolist() == [1.0, 1.5]
    assert [rate for rate, _ in baseline.best] == [0.01, 1.0]
    assert baseline.single.tolist() == [2.0, 2.0] and baseline.single_rate == 0.1
    assert baseline.fine is None


def test_rates_between_those_of_the_grid_count_for_the_finer_grid_only() -> None:
    comparison = compare(learned([0.5, 2.0]) + ADAM + adam({10**-1.5: [0.2, 9.0]}), "train", GRID)
    assert comparison is not None
    [baseline] = comparison.baselines
    assert baseline.per_task.tolist() == [1.0, 1.5]
    assert baseline.fine is not None and baseline.fine.tolist() == [0.2, 1.5]


def test_the_loss_of_the_objective_is_compared() -> None:
    comparison = compare(learned([0.5, 2.0]) + ADAM, "valid", GRID)
    assert comparison is not None and comparison.learned.tolist() == [1.5, 3.0]


def test_only_the_newest_theta_and_only_tasks_that_all_have_run() -> None:
    old, new = learned([9.0, 9.0], version=3), learned([0.5, 2.0, 4.0])
    comparison = compare(old + new + ADAM, "train", GRID)
    assert comparison is not None
    assert (comparison.version, comparison.tasks) == (7, (0, 1))
    assert comparison.learned.tolist() == [0.5, 2.0]


def test_more_initialisations_of_one_optimizer_do_not_change_the_comparison() -> None:
    extra = [line("learned", None, 0, 100.0, start=1, version=7), line("adam", 0.01, 0, 0.001, start=1)]
    comparison = compare(learned([0.5, 2.0]) + ADAM + extra, "train", GRID)
    assert comparison is not None
    assert comparison.learned.tolist() == [0.5, 2.0] and comparison.baselines[0].per_task.tolist() == [1.0, 1.5]


def test_a_rate_that_lacks_a_task_is_left_out() -> None:
    comparison = compare(learned([0.5, 2.0]) + ADAM + adam({10**-0.5: [0.1]}), "train", GRID)
    assert comparison is not None
    assert comparison.tasks == (0, 1) and comparison.baselines[0].fine is None


def test_the_numbers_are_those_of_the_command_line() -> None:
    rows = run_files.unrolls(tasks=4, starts=2, baselines=("adam", "sgd"))
    rows += [run_files.unroll("adam", 0.0178, 1000 + t, 0) for t in range(4)]
    comparison = compare(rows, "train", EvaluationConfig())
    assert comparison is not None
    numbers = summarise(rows, Config(), "f" * 64, "adam")
    adam_, learned_ = comparison.baselines[0], comparison.learned
    assert numbers["tasks"] == len(comparison.tasks) == 4
    assert numbers["learned_mean"] == pytest.approx(learned_.mean())
    assert numbers["baseline_mean"] == pytest.approx(adam_.single.mean())
    assert numbers["baseline_per_task_mean"] == pytest.approx(adam_.per_task.mean())
    assert adam_.fine is not None and numbers["baseline_fine_per_task_mean"] == pytest.approx(adam_.fine.mean())
    assert numbers["wins"] == (learned_ < adam_.per_task).sum()


@pytest.mark.parametrize(
    "unrolls",
    [[], ADAM, learned([1.0]), learned([1.0, 2.0]) + [u | {"outer_split": "outer_train"} for u in ADAM]],
    ids=["nothing", "no learned", "no baseline", "no unseen"],
)
def test_nothing_to_compare(unrolls: list[dict]) -> None:
    assert compare(unrolls, "train", GRID) is None


def test_no_task_in_common() -> None:
    assert compare([u | {"task": u["task"] + 50} for u in learned([1.0])] + ADAM, "train", GRID) is None


def test_curves_are_means_over_tasks_one_for_each_initialisation() -> None:
    unrolls = [line("learned", None, t, loss, s, 7) for t, s, loss in ((0, 0, 1.0), (1, 0, 3.0), (0, 1, 5.0))]
    x, rows = curves(unrolls, "train", "seconds")
    assert x.tolist() == [0, 5, 10]
    assert rows.tolist() == [[2.0, 1.0, 0.5], [10.0, 5.0, 2.5]]  # only task 0 ran from both


def test_the_curves_of_a_baseline_are_those_at_each_tasks_best_rate() -> None:
    comparison = compare(learned([0.5, 2.0]) + ADAM, "train", GRID)
    assert comparison is not None
    chosen = best_unrolls(learned([9.0], version=3) + learned([0.5, 2.0]) + ADAM, "adam", comparison)
    assert sorted((u["task"], u["rate"]) for u in chosen) == [(0, 0.01), (1, 1.0)]
    assert len(best_unrolls(learned([9.0], version=3) + learned([0.5, 2.0]), "learned", comparison)) == 2
    assert np.allclose(curves(chosen, "train")[1], [[2.5, 1.25, 0.625]])


def test_an_item_that_was_computed_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    row = '{"item": "i", "optimizer": "adam", "theta_sha256": null, "rate": %s, "seconds_per_step": 1}\n'
    (tmp_path / "evaluation" / "unrolls.jsonl").write_text(row % 1 + row % 2)
    assert [u["rate"] for u in read_unrolls(tmp_path)] == [2]


def test_the_seconds_are_those_of_the_timing_protocol(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    timing = {"item": "timing", "optimizer": "timing", "theta_sha256": None, "seconds": {"adam": 0.25}}
    rows = [timing, ADAM[0], learned([1.0])[0]]
    (tmp_path / "evaluation" / "unrolls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [u["seconds_per_step"] for u in read_unrolls(tmp_path)] == [0.25, 0.5]


def test_of_files_of_theta_without_a_version_the_one_asked_for_counts() -> None:
    def of(losses: list[float], digest: str) -> list[dict]:
        return [row | {"version": None, "theta_sha256": digest} for row in learned(losses)]

    unrolls = of([0.5, 2.0], "a") + of([0.7, 3.0], "b") + ADAM
    for asked, losses in (("a", [0.5, 2.0]), ("b", [0.7, 3.0]), (None, [0.7, 3.0])):
        comparison = compare(unrolls, "train", GRID, asked)
        assert comparison is not None and comparison.learned.tolist() == losses
        assert {u["theta_sha256"] for u in best_unrolls(unrolls, "learned", comparison)} == {comparison.theta_sha256}
