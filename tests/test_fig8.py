"""Figure 8: what ablations show, and equal budgets of inner steps."""

import pytest
from helpers.figures import result

from common.configfile import load
from workers.figures import fig8
from workers.figures.fig8 import Training


def results(**means):
    base = {"merged": 1.0, "rp only": 2.0, "es only": 1.5, "window 6": 1.4, "no momentum": 1.9, "no time": 1.05}
    wobble = {"merged": 0.01, "rp only": 0.2, "es only": 0.1}
    return [
        result(Training, variant=name, seed=k, losses=[[mean + wobble.get(name, 0.02) * (k - 1)]])
        for name, mean in {**base, **{n.replace("_", " "): v for n, v in means.items()}}.items()
        for k in range(3)
    ]


def test_outcome_holds_if_every_part_does():
    assert fig8.outcome(results()).holds


@pytest.mark.parametrize("worse", [{"rp_only": 0.9}, {"window_6": 0.8}, {"no_momentum": 1.0}])
def test_outcome_does_not_hold_if_one_part_does_not(worse):
    assert not fig8.outcome(results(**worse)).holds


def test_outcome_names_the_part_that_does_not_hold():
    sentence = fig8.outcome(results(no_time=2.5)).sentence
    assert "time hardly: does not hold" in sentence and "momentum needed: holds" in sentence


def test_trainings_share_one_budget_of_inner_steps():
    for job in fig8.jobs("mini", []):
        config = load(job.settings[0], job.settings[1:])
        mean = (config.curriculum.start + config.curriculum.end) / 2
        steps = config.outer.updates * config.outer.batch_samples * mean
        assert steps == pytest.approx(fig8.SCALES["mini"].budget, rel=0.05)
