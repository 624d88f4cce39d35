"""The figure of the estimators: unbiased errors, cells, and what the outcome says."""

import numpy as np
import pytest
from helpers.figures import result

from workers.figures import estimators
from workers.figures.estimator_errors import Record, cell, difference, errors, written
from workers.figures.estimators import BATCH, OTHERS, OWN, Measured, Theta, Truth


def test_errors_are_unbiased_for_bias_and_variance():
    """Estimates with bias (3, 0) and total variance 1 + 4, against halves whose noise is as large: 400 repetitions."""
    draw, truth = np.random.default_rng(0), np.array([1.0, -2.0])
    found = []
    for _ in range(400):
        rows = truth + [3, 0] + draw.normal(size=(6, 2)) * [1, 2]
        halves = truth + draw.normal(size=(2, 2))
        biases, variances = errors(rows, *halves)
        found.append([biases.mean(), variances.mean()])
    standard = np.std(found, axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(np.mean(found, axis=0) - [9, 5]) < 4 * standard) and np.all(standard < 0.5)


def record(bias=1.0, variance=4.0, seconds=0.5, wobble=0.01, count=8):
    places = np.tile([-1.0, 1.0], count // 2) * wobble
    return Record(list(bias + places), list(variance + places), seconds)


def test_cell_scales_the_variance_with_cpu_time():
    """Batches of 2 seconds hold four estimates of 0.5 seconds."""
    one = cell(record(), 2.0, 0.0)
    assert (
        one.bias.value == pytest.approx(1) and one.variance == pytest.approx(1) and one.error.value == pytest.approx(2)
    )
    assert one.per_second == pytest.approx(2)


@pytest.mark.parametrize("noise, text", [(0.2, "1.4 (b 1)"), (0.3, "below resolution")])
def test_cell_below_resolution_says_so(noise, text):
    assert written(cell(record(), 2.0, noise)) == text


def test_cell_of_exploded_estimates_is_infinite():
    biases, variances = errors(np.array([[1.0], [np.nan]]), np.zeros(1), np.zeros(1))
    assert np.isinf(biases).all() and np.isinf(variances).all()
    one = cell(Record(["Infinity", 1.0], [1.0, 1.0], 1.0), 2.0, 0.0)
    assert one.error.value == np.inf and written(one) == "infinite"


def test_difference_pairs_batches_with_their_problems():
    """Eight problems against two batches of four of them: 2 + 1 x (0.5 / 2) minus 1 + 4 x (0.5 / 2)."""
    gap = difference(cell(record(2, 1), 2.0, 0), cell(record(count=6), 2.0, 0))
    assert gap.value == pytest.approx(0.25)


def results(**variances):
    base = {OWN: 1.0, **dict.fromkeys(OTHERS, 9.0), **variances}
    table = {name: record(0.1 if name in ("rp", "es") else 0.0, variance)._asdict() for name, variance in base.items()}
    common = {"problem": "conv", "place": "trained"}
    halves = [result(Truth, half=k, variance=0.001, pairs=10, **common) for k in (0, 1)]
    return [*halves, result(Measured, window=2, estimators=table, reference=0.5 / BATCH, **common)]


def test_outcome_holds_if_the_error_is_least_everywhere():
    outcome = estimators.outcome(results())
    assert outcome.holds and "conv, trained: PES + rp at 2 steps" in outcome.sentence


def test_outcome_does_not_hold_if_another_is_better():
    outcome = estimators.outcome(results(NRES=0.5))
    assert outcome.holds is False and "conv, trained: NRES at 2 steps" in outcome.sentence


def test_outcome_within_the_noise_is_undecided():
    assert estimators.outcome(results(PES=1.0)).holds is None


def test_table_has_a_line_for_each_regime():
    lines = estimators.table(results()).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| conv, trained, 2 |")


def test_jobs_come_in_three_stages():
    first = estimators.jobs("mini", [])
    assert len(first) == len(estimators.SCALES["mini"].problems)
    thetas = [Theta.of(job, thetas=["AAAA", "AAAB", "AAAC"]) for job in first]
    second = estimators.jobs("mini", thetas)
    assert len(second) == len(first) * (1 + 3 * 2)
    truths = [
        Truth.of(job, gradient="AAAA", method="rp", variance=1.0, seconds=1.0)
        for job in second
        if isinstance(job, estimators.TruthJob)
    ]
    third = estimators.jobs("mini", [*thetas, *truths])
    assert len(third) == len(first) * (1 + 3 * (2 + 4))
    assert len({job.name for job in third}) == len(third)
