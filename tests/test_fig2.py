"""Figure 2: the toy of the paper, and what counts as rough."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.figures import result, train

from workers.figures import fig2
from workers.figures.fig2 import Adam, roughness


@pytest.fixture(scope="module")
def toy():
    return fig2.perform(fig2.TOY, train)


def adam(growth, problems=5):
    return [result(Adam, spread=[growth ** (t / 5) for t in range(41)]) for _ in range(problems)]


@pytest.mark.heavy
def test_outcome_holds_where_neighbouring_rates_drift_apart(toy):
    outcome = fig2.outcome([toy, *adam(2.0)])
    assert outcome.holds and "5 steps" in outcome.sentence
    assert fig2.outcome([toy, *adam(0.5)]).holds is False
    assert fig2.outcome([toy, *adam(2.0, problems=4)]).holds is None


def test_outcome_does_not_hold_where_the_toy_stays_smooth(toy):
    smooth = replace(toy, final=[toy.final[0]] * len(toy.final))
    assert fig2.outcome([smooth, *adam(2.0)]).holds is False


def test_toy_finds_the_deeper_minimum_with_momentum_only(toy):
    assert min(toy.final[-1]) == pytest.approx(-3.1, abs=0.1)  # near w = 3.57
    assert toy.final[-1][0] == pytest.approx(0, abs=1e-3)


def test_toy_slope_is_the_derivative_of_its_loss(toy):
    """Where the loss is smooth: after 5 steps, against central differences of neighbours."""
    differences = np.abs(np.gradient(toy.final[0], toy.values()))[1:-1]
    np.testing.assert_allclose(np.array(toy.slope[0])[1:-1], differences, rtol=0.02, atol=0.2)


def test_toy_slope_explodes_with_the_steps(toy):
    largest = [np.max(slope) for slope in toy.slope]
    assert largest[-1] > 100 * largest[0]


def test_toy_over_learning_rates_reaches_both_minima():
    toy = fig2.perform(fig2.TOY_RATE, train)
    assert min(toy.final[-1]) == pytest.approx(-3.1, abs=0.1) and max(toy.final[-1]) == pytest.approx(0, abs=0.01)
    assert roughness(toy.final[-1]) > 0.9 > 0.1 > roughness(toy.final[0])


def test_roughness_is_one_for_a_step_and_small_for_a_line():
    assert roughness(np.linspace(0, 5, 101)) == pytest.approx(0.01)
    assert roughness([0, 0, 3, 3]) == 1.0
