"""Skipping rp: the curve must stay where it is, and training must be faster."""

import pytest
from helpers.figures import result

from workers.figures import probing
from workers.figures.probing import Training


def results(shift, seconds=1.0, wobble=0.001):
    found = []
    for seed in range(5):
        for rate in (probing.WITH, probing.WITHOUT):
            own = shift + wobble * (seed - 2) if rate == probing.WITHOUT else 0.0
            losses = [[2.0 + seed] * 2, [1.0 + own] * 2, [0.8 + own] * 2]
            took = seconds if rate == probing.WITHOUT else 2.0
            more = {"ratios": [6.0] * 10 + [None, 1.0], "skipped": 0.8, "seconds": took}
            found.append(result(Training, rate=rate, seed=seed, losses=losses, **more))
    return found


def test_outcome_holds_if_the_curve_stays_and_updates_are_faster():
    assert probing.outcome(results(0.0)).holds
    assert "10^6.0 times that of es in the first" in probing.outcome(results(0.0)).sentence


@pytest.mark.parametrize("change", [{"shift": 0.1}, {"seconds": 3.0}], ids=lambda c: next(iter(c)))
def test_outcome_does_not_hold_if_curve_or_speed_is_worse(change):
    assert probing.outcome(results(**{"shift": 0.0, **change})).holds is False


def test_outcome_of_scattered_curves_is_undecided():
    found = probing.outcome(results(0.0, wobble=0.1))
    assert found.holds is None and "the same loss (within 5%): undecided; more updates" in found.sentence


def test_speed_is_the_ratio_of_times_between_updates():
    assert probing.speed(results(0.0)).value == pytest.approx(2.0)
