"""Figure 8: what ablations show, and equal budgets of inner steps."""

import numpy as np
import pytest
from helpers.figures import result

from common.configfile import load
from workers.figures import fig8
from workers.figures.fig8 import Training

PLACES = (-1.5, -1.0, 0.0, 0.5, 1.0, 1.0)  # of the seeds around the mean


def results(**means):
    base = {"merged": 1.0, "rp only": 2.0, "es only": 1.5, "window 6": 1.4, "no momentum": 1.9, "no time": 1.01}
    wobble = {"merged": 0.01, "rp only": 0.2, "es only": 0.1}
    return [
        result(Training, variant=name, seed=k, losses=[[mean + wobble.get(name, 0.02) * place]])
        for name, mean in {**base, **{n.replace("_", " "): v for n, v in means.items()}}.items()
        for k, place in enumerate(PLACES)
    ]


def test_outcome_holds_if_every_part_does():
    assert fig8.outcome(results()).holds


@pytest.mark.parametrize("worse", [{"rp_only": 0.5}, {"window_6": 0.8}, {"no_momentum": 0.9}])
def test_outcome_does_not_hold_if_one_part_does_not(worse):
    assert fig8.outcome(results(**worse)).holds is False


def test_outcome_names_the_part_that_does_not_hold():
    sentence = fig8.outcome(results(no_time=2.5)).sentence
    assert "momentum): does not hold" in sentence and "momentum needed: holds" in sentence


def test_outcome_within_the_noise_is_undecided():
    """merged and rp differ in no more than chance would give; two standard deviations of 0.040 and 0.039 do as well."""
    noise = np.array([0.04, -0.03, 0.05, -0.05, -0.02, 0.03])
    found = [one for one in results() if one.variant != "rp only"]
    found += [result(Training, variant="rp only", seed=k, losses=[[1.0 + gap]]) for k, gap in enumerate(noise)]
    outcome = fig8.outcome(found)
    assert outcome.holds is None and "rp and es alone: undecided" in outcome.sentence


def test_trainings_share_one_budget_of_inner_steps():
    for job in fig8.jobs("mini", []):
        config = load(job.settings[0], job.settings[1:])
        mean = (config.curriculum.start + config.curriculum.end) / 2
        steps = config.outer.updates * config.outer.batch_samples * mean
        assert steps == pytest.approx(fig8.SCALES["mini"].budget, rel=0.05)
