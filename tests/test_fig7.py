"""Figure 7: digits and other problems, and the shipped optimizers that fit."""

import pytest
from helpers.figures import result
from helpers.tasks import TINY

from workers.figures import fig7
from workers.figures.fig7 import Curve


def results(valid, starts=5):
    means = {"adam": [1.2] * starts, "learned (train)": [1.1] * starts, "learned (valid)": valid}
    return [
        result(
            Curve,
            **{"where": where, "source": "x", "optimizer": name, "start": start, "first": 2.3, "train": [2.0, 0.5]},
            **{"mean_train": value, "mean_test": value},
        )
        for where in ("digits", "wide")
        for name, values in means.items()
        for start, value in enumerate(values)
    ]


def test_outcome_holds_if_the_one_for_valid_generalises_better():
    assert fig7.outcome(results([1.0, 1.02, 0.98, 1.0, 1.01])).holds is True
    assert fig7.outcome(results([1.15, 1.16, 1.17, 1.15, 1.15])).holds is False


def test_outcome_of_scattered_or_few_starts_is_undecided():
    scattered = fig7.outcome(results([0.5, 1.4, 1.0, 1.2, 1.05]))
    few = fig7.outcome(results([1.0, 1.02, 0.98], starts=3))
    for found in (scattered, few):
        assert found.holds is None and "generalises better: undecided" in found.sentence
    assert "(no interval: fewer than 5 samples)" in few.sentence and "no interval" not in scattered.sentence


def test_gaps_are_adam_minus_learned_on_one_kind_of_problem():
    assert fig7.gaps(results([1.0] * 5), "wide", "learned (train)", "train").tolist() == pytest.approx([0.1] * 5)


def test_drops_are_counted_from_guessing_to_the_last_point():
    assert fig7.drops(results([1.0] * 5), "learned (train)").tolist() == pytest.approx([1.8] * 5)


def test_shipped_optimizers_are_those_of_the_same_network():
    assert set(fig7.shipped(("mini",))) == {"small-conv-train", "small-conv-valid"}
    assert fig7.shipped(TINY) == {}
