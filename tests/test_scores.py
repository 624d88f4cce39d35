"""Scores: laws of the speedup, and what does not reach a target."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import run_files

from workers.evaluation.pooling import in_one_pool, over_seeds
from workers.evaluation.results import BySplit, UnrollResult, block_ends
from workers.evaluation.scores import LEARNED, Scores, Side, pay_back, score, steps_to, target
from workers.evaluation.tuning import Setting

STEPS = 1000


def unroll(optimizer: str, task: int, losses: np.ndarray, seconds: float = 0.5, **fields) -> UnrollResult:
    """An unroll with these losses [steps]."""
    digest = "sha" if optimizer == LEARNED else None
    fields = {"theta_sha256": digest, "rate": None if digest else 0.1, **fields}
    ends = block_ends(len(losses))
    blocks = tuple(float(part.mean()) for part in np.split(losses, ends[:-1]))
    last = float(losses[-1])
    return replace(
        run_files.constant_result(optimizer, task, 1.0, **fields),
        blocks=blocks,
        steps=(len(losses) // 2, len(losses)),
        curves=BySplit((1.0, last), (1.0, last + 0.1), (1.0, last + 0.2)),
        seconds_per_step=seconds,
    )


def decay(task: int, pace: float = 1.0) -> np.ndarray:
    """A falling curve, different on every task."""
    return (2 + 0.1 * task) * np.exp(-pace * np.arange(1, STEPS + 1) / (300 + 20 * task))


def scored(unrolls: list[UnrollResult], tasks: int = 12) -> Scores:
    found = score(unrolls, range(tasks), "train")
    assert found is not None
    return found


def pair(pace: float = 1.0, seconds: float = 0.5) -> list[UnrollResult]:
    own = [unroll(LEARNED, task, decay(task, pace), seconds) for task in range(12)]
    return own + [unroll("adam", task, decay(task)) for task in range(12)]


def test_optimizer_against_itself_has_speedup_one() -> None:
    scores = scored(pair())
    for versus in (scores.best, *scores.by_baseline["adam"]):
        for estimate in (versus.speedup_steps, versus.speedup_seconds):
            assert estimate.low is not None and estimate.high is not None
            assert estimate.value == 1.0 and estimate.low <= 1.0 <= estimate.high
    assert scores.best.final_ratio == 1.0 and scores.best.algoperf_score == 1.0


def test_same_curve_at_half_the_speed_gives_two() -> None:
    slower = [replace(u, seconds_per_step=1.0) if u.optimizer == "adam" else u for u in pair()]
    best = scored(slower).best
    assert best.speedup_steps.value == 1.0 and best.speedup_seconds.value == 2.0
    steps = scored(pair(pace=2.0)).best.speedup_steps
    assert steps.value == pytest.approx(2.0, rel=0.03)  # the trailing means cover 5 % of the steps


def test_baseline_that_diverges_everywhere_is_counted() -> None:
    scores = scored(pair() + [unroll("lion", task, np.full(STEPS, 10.0)) for task in range(12)])
    assert set(scores.by_baseline) == {"adam", "lion"} and scores.side("lion").score == 0.0
    assert np.isinf(scores.ratios["lion"]).all()
    assert scores.best.speedup_steps.value == 1.0  # the best baseline is the other one


def test_target_that_is_never_reached_is_a_speedup_of_zero() -> None:
    own = [unroll(LEARNED, task, np.full(STEPS, 5.0)) for task in range(12)]
    scores = scored(own + pair()[12:])
    assert scores.best.speedup_steps == (0.0, 0.0, 0.0) and scores.best.wins == 0
    assert scores.side(LEARNED).score == 0.0 and scores.side("adam").score == 1.0


def test_target_is_the_trailing_mean_at_a_fraction_of_the_steps() -> None:
    one = unroll("adam", 0, np.arange(STEPS, 0, -1.0))
    assert [target(one, percent) for percent in (100, 75, 50)] == [25.5, 275.5, 525.5]
    assert [steps_to(one, goal) for goal in (525.5, 525.4, 0.5)] == [500, 505, np.inf]
    assert one.final("train") == 25.5


def test_results_without_blocks_or_cut_short_have_no_scores() -> None:
    """Those of older versions, whose curves are means over other windows: they win nothing and are no target."""
    for other in ({"blocks": ()}, {"stopped": 3}):
        best = [replace(unroll("adam", task, decay(task, 9.0), rate=0.01), **other) for task in range(12)]
        assert scored(pair() + best).to_json() == scored(pair()).to_json()
        assert score([replace(u, **other) for u in pair()], range(12), "train") is None


def test_final_losses_of_other_splits_are_of_the_last_points() -> None:
    one = unroll("adam", 0, decay(0))
    assert one.final("valid") == one.curves.valid[-1] and one.final("test") == one.curves.test[-1]
    assert replace(one, stopped=3).final("train") == np.inf


def test_initialisations_of_a_task_are_averaged_in_logs() -> None:
    extra = [unroll(LEARNED, 0, decay(0), 0.125, initialisation=1), unroll("adam", 0, decay(0), initialisation=1)]
    assert scored(pair() + extra).best.seconds[0] == pytest.approx(2.0)  # of 1 and 4


def test_best_setting_is_the_one_of_the_least_final_loss() -> None:
    other = [unroll("adam", task, decay(task, 0.5), rate=0.01) for task in range(12)]
    scores = scored(pair() + other)
    assert {s.setting for s in scores.per_task if s.optimizer == "adam"} == {Setting(0.1)}
    assert scores.side("adam").trials == 2 and scores.side(LEARNED).trials == 1


def test_side_counts_trials_costs_and_what_was_rejected() -> None:
    early = unroll("adam", 0, decay(0, 0.1), rate=3.0, decay=0.1, schedule="cosine")
    side = scored([*pair(), early]).side("adam")
    assert side.trials == 2 and side.rejected == ("3, decay 0.1, cosine",)
    assert side.core_seconds == pytest.approx(13 * STEPS * 0.5)


def test_numbers_have_the_keys_of_every_target() -> None:
    numbers = scored(pair()).to_json()
    ends = [f"{key}{end}" for key in ("speedup_steps", "speedup_seconds") for end in ("", "_low", "_high")]
    assert set(numbers) == {*ends, "final_ratio", "algoperf_score", "baselines"}
    adam = numbers["baselines"]["adam"]
    assert {f"speedup_seconds{t}{end}" for t in ("", "_75", "_50") for end in ("", "_low", "_high")} <= set(adam)
    assert adam["speedup_steps_50"] == 1.0 and adam["trials"] == 1


def test_pay_back_is_cost_over_what_a_training_saves() -> None:
    learned = Side(LEARNED, 1, (), 0.0, 0.002, 1.0, 1.0)
    tuned = Side("adamw", 60, (), 1200.0, 0.001, 1.0, 1.0)
    assert pay_back(5900.0, learned, tuned, tasks=20, steps=500) == 100  # 60 - 1 core seconds each
    assert pay_back(None, learned, tuned, 20, 500) is None
    assert pay_back(1.0, learned, tuned._replace(core_seconds=1.0), 20, 500) is None


def test_score_without_a_complete_unroll_is_none() -> None:
    assert score(pair()[:12], range(12), "train") is None


def test_test_images_decide_nothing() -> None:
    unrolls = pair() + [unroll("adam", task, decay(task, 0.5), rate=0.01) for task in range(12)]
    poisoned = [replace(u, curves=u.curves._replace(test=(1e9, -1e9 * (u.rate or 1)))) for u in unrolls]
    clean, other = scored(unrolls), scored(poisoned)
    assert [s.setting for s in clean.per_task] == [s.setting for s in other.per_task]
    assert clean.to_json() == other.to_json()


def test_best_baseline_is_that_of_the_least_final_train_loss() -> None:
    """Also for the validation objective, on which another one ends lower."""
    curve = decay(0)
    train = {"adam": 0.9, "sgd": 0.7}
    valid = {"adam": curve, "sgd": curve + 0.3}
    unrolls = [
        replace(
            unroll(name, 0, valid[name]), curves=BySplit((1.0, train[name]), (1.0, 1.0), (1.0, 1.0)), objective="valid"
        )
        for name in train
    ]
    learned = replace(unroll(LEARNED, 0, curve), objective="valid")
    found = score([learned, *unrolls], [0], "valid")
    assert found is not None
    assert found.best.steps == found.by_baseline["sgd"][0].steps != found.by_baseline["adam"][0].steps


def test_pooled_scores_are_among_all_optimizers() -> None:
    """Of three that differ in nothing but pace, only the fastest scores 1; alone with the baseline, two would."""
    paces = {"slow": 0.75, "fast": 0.25}  # seconds per step; the baseline needs 0.5
    each = {name: scored(pair(seconds=seconds)) for name, seconds in paces.items()}
    found = in_one_pool(each)
    assert {name: one.side(LEARNED).score for name, one in found.items()} == {"slow": pytest.approx(1 / 3), "fast": 1.0}
    assert found["slow"].side("adam").score == found["fast"].side("adam").score == pytest.approx(2 / 3)
    assert each["slow"].side("adam").score == 1.0 and found["slow"].best.algoperf_score == pytest.approx(1 / 3)
    other = scored([u for u in pair() if u.task < 11], tasks=11)
    assert in_one_pool({**each, "other": other})["other"] is other


def test_over_seeds_averages_logarithms_task_by_task() -> None:
    """A seed that is twice as fast and one that is half as fast are as fast as the baseline, not 1.25 times."""
    each = [scored(pair(seconds=seconds)) for seconds in (0.25, 1.0)]
    found = over_seeds(each, "train")
    assert found is not None
    assert [one.best.speedup_seconds.value for one in each] == [2.0, 0.5]
    assert found.best.speedup_seconds.value == found.by_baseline["adam"][1].speedup_seconds.value == pytest.approx(1.0)
    assert (found.side(LEARNED).trials, found.side(LEARNED).seconds_per_step, found.best.wins) == (1, 0.625, 0)
    assert found.to_json()["final_ratio"] == pytest.approx(1.0)
    one = over_seeds(each[:1], "train")
    assert one is not None and one.to_json() == each[0].to_json()


def test_over_seeds_of_other_tasks_is_none() -> None:
    fewer = scored([u for u in pair() if u.task < 11], tasks=11)
    assert over_seeds([scored(pair()), fewer], "train") is None
