"""Figure 7: digits and other problems, and the shipped optimizers that fit."""

from dataclasses import replace

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
        assert found.holds is None and "generalises better than learned (train): undecided" in found.sentence
    assert "(no interval: fewer than 5 samples)" in few.sentence and "no interval" not in scattered.sentence


def test_shipped_pair_is_judged_as_the_pair_of_the_scale():
    """The paper's sentence fails with the shipped ones: the one for validation loss has the larger test loss."""
    digits = [one for one in results([1.0] * 5) if one.where == "digits"]
    shipped = [
        replace(one, optimizer=name, mean_train=level, mean_test=level, train=[2.0, end])
        for name, level, end in (("conv-train", 0.9, 0.5), ("conv-valid", 1.3, 2.3))
        for one in digits
        if one.optimizer == "adam"
    ]
    found = fig7.outcome([*results([1.0] * 5), *shipped])
    assert found.holds is False and "learned (valid) trains faster than Adam: holds" in found.sentence
    for told in ("trains faster than Adam", "and generalises better than conv-train"):
        assert f"{told}: does not hold" in found.sentence
    assert "conv-train ends 1.8 (1.8 to 1.8) nats below guessing (5 starts learn)" in found.sentence
    assert "conv-valid ends 0 (0 to 0) nats below guessing (5 starts guess)" in found.sentence


def test_states_of_a_start_are_told_apart_at_its_end():
    ends = [0.5, 2.3, 10.0, 10.0]
    found = [replace(one, train=[2.0, end]) for one, end in zip(results([1.0] * 4, starts=4), ends)]
    assert fig7.states(found, "adam") == "1 starts learn, 1 starts guess, 2 starts diverge"


def test_gaps_are_adam_minus_learned_on_one_kind_of_problem():
    assert fig7.gaps(results([1.0] * 5), "wide", "learned (train)", "train").tolist() == pytest.approx([0.1] * 5)


def test_drops_are_counted_from_guessing_to_the_last_point():
    assert fig7.drops(results([1.0] * 5), "learned (train)").tolist() == pytest.approx([1.8] * 5)


def test_shipped_optimizers_are_those_of_the_same_network():
    pairs = {f"{size}-conv-{objective}" for size in ("small", "paper") for objective in ("train", "valid")}
    assert set(fig7.shipped(("mini",))) == pairs
    assert fig7.shipped(TINY) == {}
