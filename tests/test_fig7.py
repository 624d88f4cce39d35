"""Figure 7: digits and other problems, and the shipped optimizers that fit."""

import pytest
from helpers.figures import result
from helpers.tasks import TINY

from workers.figures import fig7
from workers.figures.fig7 import Curve


def results(valid):
    means = {"adam": 1.2, "learned (train)": 1.1, "learned (valid)": valid}
    return [
        result(Curve, where=where, source="x", optimizer=name, first=2.3, train=[2.0, 0.5], mean_train=m, mean_test=m)
        for where in ("digits", "wide")
        for name, m in means.items()
    ]


def test_outcome_holds_if_the_one_for_valid_generalises_better():
    assert fig7.outcome(results(1.0)).holds and not fig7.outcome(results(1.15)).holds


def test_gaps_are_adam_minus_learned_on_one_kind_of_problem():
    assert fig7.gaps(results(1.0), "wide", "learned (train)", "train").tolist() == pytest.approx([0.1])


def test_drops_are_counted_from_guessing_to_the_last_point():
    assert fig7.drops(results(1.0), "learned (train)").tolist() == pytest.approx([1.8])


def test_shipped_optimizers_are_those_of_the_same_network():
    assert set(fig7.shipped(("mini",))) == {"small-conv-train", "small-conv-valid"}
    assert fig7.shipped(TINY) == {}
