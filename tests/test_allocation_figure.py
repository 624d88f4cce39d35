"""The figure of allocation: what its outcome says, how CPU time is compared, and its trainings."""

import numpy as np
import pytest
from helpers import run_files
from helpers.figures import result

from common.configfile import load
from workers.figures import allocation
from workers.figures.allocation import ALLOCATED, MERGED, WITH_WINDOW, Training
from workers.figures.cpu_time import cpu_seconds, ratio_of_seconds, seconds_to

WOBBLE = (-0.002, -0.001, 0.0, 0.0, 0.001, 0.002)  # of the seeds


def training(regime, variant, seed, seconds, end):
    losses = [2.3, 1.6, end * (1 + WOBBLE[seed])]
    spent = [0.0, seconds / 2 * (1 + 10 * WOBBLE[seed]), seconds]
    return result(Training, regime=regime, variant=variant, seed=seed, losses=losses, seconds=spent, with_rp=0.25)


def results(seconds=(30.0, 90.0), ends=(1.0, 1.0)):
    """Merged takes 100 s and ends at 1; allocation as given, where gradients explode and where they do not."""
    found = []
    for regime, own, end in zip(("exploding", "mini"), seconds, ends):
        for seed in range(6):
            found += [training(regime, MERGED, seed, 100.0, 1.0), training(regime, WITH_WINDOW, seed, own, end)]
            found.append(training(regime, ALLOCATED, seed, 45.0, 1.0))
    return found


@pytest.mark.parametrize(
    "seconds, ends, holds",
    [
        ((30.0, 90.0), (1.0, 1.0), True),
        ((80.0, 90.0), (1.0, 1.0), False),
        ((50.0, 90.0), (1.0, 1.0), None),
        ((30.0, 90.0), (1.05, 1.0), False),
        ((30.0, 90.0), (1.0, 1.05), False),
        ((30.0, 90.0), (1.0, 1.02), None),
    ],
)
def test_outcome_needs_half_the_time_and_the_same_loss(seconds, ends, holds):
    assert allocation.outcome(results(seconds, ends)).holds is holds


def test_outcome_names_every_part():
    sentence = allocation.outcome(results(ends=(1.05, 1.0))).sentence
    own = [part for part in sentence.split(". ")[0].split("; ") if part.startswith(WITH_WINDOW)]
    assert [part.rpartition(": ")[2] for part in own] == ["does not hold", "holds", "holds"]
    assert "allocation 0.45" in sentence and "rp in 25% of the pairs" in sentence


def test_seconds_to_a_loss_are_interpolated_on_the_least_so_far():
    one = result(Training, losses=[2.0, 1.0, 1.5, 0.5], seconds=[0.0, 10.0, 20.0, 30.0])
    assert [seconds_to(one, loss) for loss in (1.5, 1.0, 0.75, 0.1)] == [5.0, 10.0, 20.0, 30.0]


def test_ratio_of_seconds_is_to_the_loss_that_both_reach():
    one = result(Training, losses=[2.0, 1.0], seconds=[0.0, 10.0])
    other = result(Training, losses=[2.0, 0.0], seconds=[0.0, 40.0])
    assert ratio_of_seconds(one, other) == pytest.approx(0.5) == 1 / ratio_of_seconds(other, one)


def test_ratio_of_seconds_is_1_where_nothing_is_learned():
    one = result(Training, losses=[2.0, 2.5], seconds=[0.0, 10.0])
    other = result(Training, losses=[2.0, 1.0], seconds=[0.0, 40.0])
    assert ratio_of_seconds(one, other) == ratio_of_seconds(other, one) == 1.0


def test_cpu_seconds_leave_compilation_out():
    """The first update with rp and the first without it count as the next of their kind; no other is changed."""
    seconds = {(8, 8): [20.0, 3.0, 9.0, 3.0], (0, 8): [5.0, 1.0, 1.0, 4.0]}
    history = [
        u._replace(inner_steps=100 * (1 + k % 2), rp_pairs=rp, es_pairs=es, cpu_seconds=spent * (1 + k % 2))
        for (rp, es), listed in seconds.items()
        for k, (u, spent) in enumerate(zip(run_files.history(4), listed))
    ]
    history.append(history[-1]._replace(inner_steps=100, rp_pairs=2, cpu_seconds=2.0))
    np.testing.assert_allclose(cpu_seconds(history), [3, 6, 9, 6, 1, 2, 1, 8, 2])


def test_trainings_of_a_seed_differ_in_what_their_variant_says():
    jobs = [job for job in allocation.jobs("mini", []) if job.seed == 3]
    configs = {(job.regime, job.variant): load(job.settings[0], job.settings[1:]) for job in jobs}
    assert {config.seed for config in configs.values()} == {3}
    for regime in ("exploding", "mini"):
        merged, allocated = configs[regime, MERGED], configs[regime, ALLOCATED]
        assert (merged.estimator.probe_rate, merged.estimator.allocate) == (1.0, False)
        assert allocated.estimator.allocate and allocated.estimator.probe_rate < 0.1
        assert (merged.outer, merged.curriculum, merged.task) == (allocated.outer, allocated.curriculum, allocated.task)
