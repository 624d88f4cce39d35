"""Estimates of whole problems: the learner's weights, the sums over truncations, and alpha between 0 and 1."""

from typing import NamedTuple

import numpy as np
import pytest

from common import moments
from common.config import EstimatorConfig
from common.moments import Moments
from learner.merge import Rule, merge
from workers.figures import whole_problems
from workers.figures.whole_problems import BATCH, MERGES, Units

SEGMENTS = np.array([0, 0, 1])
QUADRATIC = ("mini", "task.family=quadratic", "optimizer.family=sgd", "optimizer.learning_rate=0.05")
SHORT = (*QUADRATIC, "estimator.sigma=0.02", "task.inner_steps=12", "curriculum.start=3", "curriculum.end=12")
THETA = np.array([0.05, 0.5], np.float32)


class Estimates(NamedTuple):
    rp: Moments
    es: Moments
    family: str = ""


def units(problems=BATCH, truncations=5, older=0.0):
    """Random estimates of problems whose truncations have the same weight."""
    draw = np.random.default_rng(0)
    rp, es = ([draw.normal(1, size, (truncations, 3)) * [1, 2, 5] for _ in range(problems)] for size in (1, 2))
    sums = [np.array([rows.mean(axis=0) for rows in each]) for each in (rp, es)]
    return Units(*sums, sums[1] - older, (rp, es), 1.0)


@pytest.mark.parametrize("merge_by", [*MERGES, "cross-fitted"])
def test_merged_is_the_learners_merge(merge_by):
    found = units()
    crossed = merge_by == "cross-fitted"
    estimator = EstimatorConfig(merge="scalar" if crossed else merge_by, cross_fit=crossed)
    samples = [Estimates(moments.of(rp), moments.of(es)) for rp, es in zip(*found.each)]
    expected = merge(samples, Rule(estimator, SEGMENTS)).gradient
    made = whole_problems.merged(found, SEGMENTS)[f"merged {merge_by}"]
    np.testing.assert_allclose(made.rows, [expected], rtol=1e-9)
    assert made.seconds == BATCH


def test_merged_gives_an_exploded_rp_no_weight():
    found = units()
    found.each[0][1][2, 0] = found.rp[1, 0] = np.inf
    found = found._replace(rp=found.rp)
    np.testing.assert_array_equal(whole_problems.merged(found, SEGMENTS)["merged scalar"].rows, [found.es.mean(axis=0)])
    made = whole_problems.merged(found, SEGMENTS)["merged tensor"].rows[0]
    assert made[0] == found.es.mean(axis=0)[0] and made[2] != found.es.mean(axis=0)[2]


def test_persistent_weights_come_from_the_other_half():
    found = units(8)
    before = whole_problems.persistent(found, SEGMENTS)
    for rows in found.each[0][1::2]:
        rows[:] *= 1e6
    after = whole_problems.persistent(found, SEGMENTS)
    np.testing.assert_array_equal(after[1::2], before[1::2])
    np.testing.assert_allclose(after[0::2], found.es[0::2], rtol=1e-3)


@pytest.mark.parametrize("older, alpha", [(0.0, None), (7.0, 1.0)])
def test_shrunk_keeps_a_part_without_noise_only(older, alpha):
    """An older part that is constant is all signal; one that is zero has nothing to shrink."""
    found = units(8, older=older)
    rows = whole_problems.persistent(found, SEGMENTS)
    np.testing.assert_allclose(whole_problems.shrunk(rows, found, 4.0, SEGMENTS), rows, atol=1e-12)


def test_shrunk_alpha_is_between_0_and_1():
    draw, found = np.random.default_rng(1), units(8)
    older = draw.normal(0.1, 1, found.es.shape)
    found = found._replace(fresh=found.es - older)
    taken = np.zeros_like(older) - whole_problems.shrunk(np.zeros_like(older), found, 4.0, SEGMENTS)
    alpha = 1 - taken / older
    assert (alpha > -1e-12).all() and (alpha < 1).all()
    np.testing.assert_allclose(alpha[:, 0], alpha[:, 1])


def test_every_estimator_sums_to_the_same_problem():
    """With noise so small that all are the plain gradient, up to what truncation leaves out."""
    calm = (*SHORT, "estimator.sigma=1e-3")
    found = whole_problems.every_estimator(calm, 3, THETA, 4)
    whole = whole_problems.every_estimator(calm, 12, THETA, 4)
    assert set(whole) < set(found) and {"PES + rp, reach 1", "NRES"} < set(found)
    sampler = whole_problems.sampler_of(calm, "window 3", 12)
    truth = whole_problems.units(sampler, THETA, 4).rp
    reach = whole_problems.sampler_of(calm, "window 3", 3, es="persistent", reach=3)
    np.testing.assert_allclose(whole_problems.units(reach, THETA, 4).rp, truth, rtol=0.05, atol=0.01)
    assert not np.allclose(found["rp"].rows, truth, rtol=0.2)
    assert all(one.seconds > 0 for one in found.values())
