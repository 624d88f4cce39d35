"""The comparison with tuned baselines, against numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from cluster.comparison import best_unrolls, compare, curves, read_lines, read_unrolls, summary
from common.config import EvaluationConfig
from common.errors import UserError

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
    assert summary(comparison) == {
        "tasks": 2,
        "learned_mean": 1.25,
        "baseline_mean": 2.0,
        "baseline_per_task_mean": 1.25,
        "baseline_fine_mean": None,
        "ratio": 1.0,
        "wins": 1,
    }


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


def test_initialisations_that_all_ran_are_averaged() -> None:
    again = [u | {"initialisation": 1, "mean_train": u["mean_train"] + 2} for u in learned([0.5, 2.0]) + ADAM]
    comparison = compare(learned([0.5, 2.0]) + ADAM + again, "train", GRID)
    assert comparison is not None and comparison.learned.tolist() == [1.5, 3.0]


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


def test_the_last_line_may_be_cut_off_but_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a"')
    assert read_lines(path) == [{"a": 1}]
    path.write_text('{"a"\n{"a": 1}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 1 is not JSON"):
        read_lines(path)
    assert read_lines(tmp_path / "none.jsonl") == []


def test_an_item_that_was_computed_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    row = '{"item": "i", "optimizer": "adam", "theta_sha256": null, "rate": %s}\n'
    (tmp_path / "evaluation" / "a.jsonl").write_text(row % 1 + row % 2)
    (tmp_path / "evaluation" / "b.jsonl").write_text(row % 3)
    assert [u["rate"] for u in read_unrolls(tmp_path)] == [3]
