"""Figure 3: what counts as bias, and equal budgets of inner steps."""

import pytest
from helpers.figures import result

from common.configfile import load
from workers.figures import fig3
from workers.figures.fig3 import Gradient, Rates, Training, TrainingJob
from workers.figures.pictures.fig3 import rolling


def results(short, long, starts=5, slope=1.0):
    found = [
        result(Training, window=w, seed=seed, rates=[rate] * 20)
        for seed in range(starts)
        for w, rate in ((10, short), (100, long))
    ]
    found.append(result(Rates, rates=[0.001, 0.01, 0.1], losses=[2.0, 1.0, 3.0]))
    for window, own in ((10, slope), (100, -1.0)):
        found += [result(Gradient, window=window, rate=0.005, gradients=[own], problem=k) for k in range(starts)]
    return found


@pytest.mark.parametrize("short, long, holds", [(0.001, 0.009, True), (0.009, 0.001, False), (0.006, 0.009, False)])
def test_outcome_holds_if_only_short_windows_move_away(short, long, holds):
    assert fig3.outcome(results(short, long)).holds is holds
    assert fig3.outcome(results(short, long, starts=4)).holds is None


def test_outcome_fails_if_short_windows_have_the_same_sign():
    found = fig3.outcome(results(0.001, 0.009, slope=-0.5))
    assert found.holds is False and "the opposite sign: does not hold" in found.sentence


def test_best_rate_has_the_least_mean_loss():
    assert fig3.best_rate(results(0.001, 0.009))[0] == 0.01


def test_loss_at_interpolates_in_the_logarithm():
    assert fig3.loss_at(results(0.001, 0.009), 0.1**2.5).tolist() == pytest.approx([1.5])


def test_gradient_sums_are_means_over_the_truncations():
    assert fig3.gradient_sums(results(0.001, 0.009, starts=2), 100).tolist() == [-1.0, -1.0]


def test_trainings_share_one_budget_of_inner_steps():
    trainings = [job for job in fig3.jobs("mini", []) if isinstance(job, TrainingJob)]
    assert len(trainings) == 12
    for job in trainings:
        config = load(job.settings[0], job.settings[1:])
        steps = config.outer.updates * config.outer.batch_samples * config.curriculum.end
        assert steps == pytest.approx(fig3.SCALES["mini"].total, rel=0.05)


def test_rolling_average_by_hand():
    assert rolling([1.0, 2.0, 0.0], decay=0.5) == [1.0, 1.5, 0.75]
