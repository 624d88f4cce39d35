import doctest

import numpy as np
import pytest
from helpers.learner import SEGMENTS, SIZE, sample
from hypothesis import given
from hypothesis import strategies as st

from common import moments
from common.config import EstimatorConfig
from common.inverse_variance import FLOOR, inverse_variance
from learner import merge as merge_module
from learner.merge import EXPLODED, Rule, calm, exploded, merge

SCALAR, TENSOR, COORDINATE = "scalar", "tensor", "coordinate"


def rule(use="merged", granularity=COORDINATE, cross_fit=False, segments=SEGMENTS, rp_variance="batch"):
    estimator = EstimatorConfig(use=use, merge=granularity, cross_fit=cross_fit, rp_variance=rp_variance)
    return Rule(estimator, np.asarray(segments, int))


def batch(rp, es):
    """One sample per row; a row of None stands for a skipped estimator."""
    made = []
    for k, rows in enumerate(zip(rp, es, strict=True)):
        both = [moments.empty(len(es[0])) if row is None else moments.of(np.atleast_2d(row)) for row in rows]
        made.append(sample("w0", k, rp=both[0], es=both[1]))
    return made


def random_batch(count=8, size=SIZE, scale_rp=1.0, seed=0):
    random = np.random.default_rng(seed)
    return batch(random.normal(0.3, scale_rp, (count, size)), random.normal(0.3, 1, (count, size)))


def test_merge_equation_1_by_hand():
    """rp: mean 2, variance 2, so 1 of the mean; es: mean 5, variance 18, so 9 of the mean. Weight 9 / 10."""
    merged = merge(batch([[1.0], [3.0]], [[2.0], [8.0]]), rule(segments=[0]))
    assert merged.weight_rp[0] == pytest.approx(0.9, rel=1e-15)
    assert merged.gradient[0] == pytest.approx(0.9 * 2 + 0.1 * 5, rel=1e-15)
    assert (merged.rp.count, merged.es.count, merged.fallback) == (2, 2, 0)


def test_merge_divides_each_variance_by_its_own_count():
    """rp of two samples only: variance 2 / 2; es of four: variance 12 / 4. Weight 3 / 4."""
    merged = merge(batch([[1.0], [3.0], None, None], [[2.0], [8.0], [2.0], [8.0]]), rule(segments=[0]))
    assert merged.weight_rp[0] == pytest.approx(0.75, rel=1e-15)
    assert merged.gradient[0] == pytest.approx(0.75 * 2 + 0.25 * 5, rel=1e-15)


def test_merge_floors_sample_variances():
    """rp that never varies has the floor's variance, not 0: es at twice the floor keeps a third of the weight."""
    spread = np.sqrt(FLOOR)
    merged = merge(batch([[1.0], [1.0]], [[-spread], [spread]]), rule(segments=[0]))
    assert merged.weight_rp[0] == pytest.approx(2 / 3, rel=1e-9)
    both = merge(batch([[1.0], [1.0]], [[3.0], [3.0]]), rule(segments=[0]))
    assert (both.weight_rp[0], both.gradient[0]) == (0.5, 2.0)


def test_merge_granularity_pools_variances():
    rp = np.array([[0.0, 0.0, 0.0], [2.0, 4.0, 6.0]])  # variances 2, 8, 18
    es = np.array([[0.0, 0.0, 0.0], [4.0, 4.0, 2.0]])  # variances 8, 8, 2
    expected = {
        COORDINATE: [8 / 10, 8 / 16, 2 / 20],
        TENSOR: [8 / 13, 8 / 13, 2 / 20],
        SCALAR: [6 / (28 / 3 + 6)] * 3,
    }
    for granularity, weights in expected.items():
        merged = merge(batch(rp, es), rule(granularity=granularity, segments=[0, 0, 1]))
        np.testing.assert_allclose(merged.weight_rp, weights, rtol=1e-14)
        np.testing.assert_allclose(merged.gradient, merged.weight_rp * [1, 2, 3] + (1 - merged.weight_rp) * [2, 2, 1])


def test_merge_single_estimators_are_their_means():
    samples = random_batch()
    for use, weight in (("rp", 1.0), ("es", 0.0)):
        merged = merge(samples, rule(use))
        np.testing.assert_array_equal(merged.weight_rp, weight)
        np.testing.assert_array_equal(merged.gradient, getattr(merged, use).mean)


@pytest.mark.parametrize("cross_fit", [False, True])
@pytest.mark.parametrize("granularity", [COORDINATE, TENSOR, SCALAR])
@pytest.mark.parametrize("ratio", [1e-10, 1e-5, 1.0, 1e5, 1e10, 1e14, 1e150, 1e200])
def test_merge_any_ratio_of_scales_is_finite(ratio, granularity, cross_fit):
    merged = merge(random_batch(scale_rp=ratio), rule(granularity=granularity, cross_fit=cross_fit))
    assert np.isfinite(merged.gradient).all()
    assert ((merged.weight_rp >= 0) & (merged.weight_rp <= 1)).all()
    if ratio >= 1e5 and not cross_fit:
        np.testing.assert_allclose(merged.gradient, merged.es.mean, rtol=1e-3, atol=1e-3)
    if ratio <= 1e-5:
        np.testing.assert_allclose(merged.gradient, merged.rp.mean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20, 1e30, 1e200])
@pytest.mark.parametrize("cross_fit", [False, True])
def test_merge_exploded_rp_coordinate_falls_back_to_es(bad, cross_fit):
    samples = random_batch()
    rows = [s.rp.mean.copy() for s in samples]
    rows[3][2] = bad
    merged = merge(batch(rows, [s.es.mean for s in samples]), rule(cross_fit=cross_fit))
    clean = merge(samples, rule(cross_fit=cross_fit))
    assert merged.fallback == 1
    assert merged.gradient[2] == pytest.approx(merged.es.mean[2], rel=1e-14)
    others = np.arange(SIZE) != 2
    np.testing.assert_array_equal(merged.gradient[others], clean.gradient[others])


def test_merge_infinite_variance_excludes_its_tensor():
    samples = random_batch()
    rows = [s.rp.mean.copy() for s in samples]
    rows[0][1] = np.nan
    merged = merge(batch(rows, [s.es.mean for s in samples]), rule(granularity=TENSOR))
    np.testing.assert_array_equal(merged.weight_rp[:4], 0)
    assert (merged.weight_rp[4:] > 0).all()
    assert merged.fallback == 1


def test_merge_rp_only_takes_no_coordinate_of_es():
    samples = batch([[1.0, 1e30], [3.0, 2.0]], [[5.0, 6.0], [7.0, 8.0]])
    merged = merge(samples, rule("rp", segments=[0, 1]))
    np.testing.assert_array_equal(merged.gradient, [2, 5e29])
    assert merged.fallback == 0


def test_merge_rp_only_without_observation_is_zero():
    samples = batch([None, None], [[5.0, 6.0], [7.0, 8.0]])
    np.testing.assert_array_equal(merge(samples, rule("rp", segments=[0, 1])).gradient, [0, 0])
    partly = merge(batch([None, [1.0, 2.0]], [[5.0, 6.0], [7.0, 8.0]]), rule("rp", segments=[0, 1]))
    np.testing.assert_array_equal(partly.gradient, [1, 2])


def test_merge_fewer_than_two_observations_weigh_0():
    one = merge(batch([[1.0]], [[5.0]]), rule(segments=[0]))
    assert (one.weight_rp[0], one.gradient[0]) == (0, 5)  # neither variance is known: equal to es
    few_rp = merge(batch([[1.0], None, None], [[5.0], [6.0], [7.0]]), rule(segments=[0]))
    assert (few_rp.weight_rp[0], few_rp.gradient[0]) == (0, 6)
    no_rp = merge(batch([None, None], [[5.0], [7.0]]), rule(segments=[0]))
    assert (no_rp.weight_rp[0], no_rp.gradient[0], no_rp.fallback) == (0, 6, 0)
    crossed = merge(random_batch(2), rule(cross_fit=True))
    np.testing.assert_allclose(crossed.gradient, crossed.es.mean)


def test_merge_without_rp_is_es():
    samples = [s._replace(rp=moments.empty(SIZE)) for s in random_batch()]
    for use in ("es", "merged"):
        np.testing.assert_array_equal(merge(samples, rule(use)).gradient, merge(samples, rule("es")).es.mean)


def test_merge_without_es_is_rp():
    samples = [s._replace(es=moments.empty(SIZE)) for s in random_batch()]
    for use in ("rp", "merged"):
        merged = merge(samples, rule(use))
        np.testing.assert_array_equal(merged.gradient, merged.rp.mean)


def test_inverse_variance_at_0_and_infinity():
    inf = np.inf
    rp = np.array([1.0, inf, 1.0, inf, 1e-8, 1e308])
    es = np.array([3.0, 1.0, inf, inf, 1e12, 1e308])
    np.testing.assert_array_equal(inverse_variance(rp, es)[:4], [0.75, 0, 1, 0])
    assert inverse_variance(rp, es)[4] == pytest.approx(1, abs=1e-15)


@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300))
def test_inverse_variance_weights_are_symmetric(a, b):
    left, right = inverse_variance(np.array([a]), np.array([b]))[0], inverse_variance(np.array([b]), np.array([a]))[0]
    assert left + right == pytest.approx(1, rel=1e-12)
    assert (left >= right) == (a <= b)


def test_merge_cross_fit_by_hand():
    """Even positions: rp 1, 3 and es 2, 8; odd ones: rp 0, 8 and es 4, 6. Each half weighted by the other's variances."""
    samples = batch([[1.0], [0.0], [3.0], [8.0]], [[2.0], [4.0], [8.0], [6.0]])
    merged = merge(samples, rule(cross_fit=True, segments=[0]))
    even, odd = 2 / (32 + 2), 18 / (2 + 18)  # by the odd half's, by the even half's
    assert merged.weight_rp[0] == pytest.approx((even + odd) / 2, rel=1e-14)
    expected = ((even * 2 + (1 - even) * 5) + (odd * 4 + (1 - odd) * 5)) / 2
    assert merged.gradient[0] == pytest.approx(expected, rel=1e-14)


def test_merge_cross_fit_weighs_halves_by_size():
    samples = batch(np.arange(5.0)[:, None], np.ones((5, 1)))
    merged = merge([s._replace(rp=s.es) for s in samples], rule(cross_fit=True, segments=[0]))
    assert merged.gradient[0] == pytest.approx(1, rel=1e-15)
    uneven = merge(batch(np.zeros((5, 1)), np.array([[1.0], [0.0], [1.0], [0.0], [1.0]])), rule("es", segments=[0]))
    assert uneven.gradient[0] == pytest.approx(0.6)


def test_merge_cross_fit_with_a_single_probe():
    samples = batch([[9.0], None, None, None], [[1.0], [2.0], [3.0], [6.0]])
    assert merge(samples, rule(cross_fit=True, segments=[0])).gradient[0] == pytest.approx(3)


def test_merge_cross_fit_removes_bias_of_the_weights():
    """Skewed estimators of mean 1: a calm batch has a small mean, so plain weights favour small means; crossed do not.

    One merge of 4,000 coordinates, 16 pairs each. The crossed mean lies within 4 standard errors of 1.
    """
    rp, es = np.random.default_rng(1).lognormal(-0.5, 1.0, (2, 16, 4000))
    plain, crossed = (
        merge(batch(rp, es), rule(cross_fit=cross_fit, segments=np.zeros(4000))).gradient for cross_fit in (False, True)
    )
    assert plain.mean() < 0.9
    assert crossed.mean() == pytest.approx(1, abs=4 * crossed.std() / 4000**0.5)


def past(of_one):
    """Moments of earlier batches without families, with this variance."""
    known = moments.of(np.array([[0.0], [np.sqrt(2 * of_one)]])) if np.isfinite(of_one) else moments.empty(1)
    return {"": known}


def test_merge_past_variance_replaces_that_of_the_batch():
    """rp of two calm probes in four samples; the past says variance 100, so 50 of the mean; es has 12 / 4."""
    samples = batch([[1.0], [1.0], None, None], [[2.0], [8.0], [2.0], [8.0]])
    merged = merge(samples, rule(segments=[0]), past_rp=past(100.0))
    assert merged.weight_rp[0] == pytest.approx(3 / 53, rel=1e-14)
    single = merge(batch([[1.0], None], [[2.0], [8.0]]), rule(segments=[0]), past_rp=past(9.0))
    assert single.weight_rp[0] == pytest.approx(9 / 18)  # one probe is enough: es has 18 / 2
    unknown = merge(samples, rule(segments=[0]), past_rp=past(np.inf))
    assert unknown.weight_rp[0] == 0


@pytest.mark.parametrize(("of_past", "weight"), [(50.0, 18 / 68), (1.0, 0.9), (np.inf, 0.9)])
def test_merge_recent_variance_counts_where_it_is_larger(of_past, weight):
    """The batch of equation 1 by hand, whose rp has the variance 2; the last one is a past of fewer than two pairs."""
    samples = batch([[1.0], [3.0]], [[2.0], [8.0]])
    merged = merge(samples, rule(segments=[0], rp_variance="recent"), past_rp=past(of_past))
    assert merged.weight_rp[0] == pytest.approx(weight, rel=1e-14)


def test_merge_sparse_batch_has_the_recent_variance_of_the_past():
    samples = batch([[1.0], [9.0], None, None], [[2.0], [8.0], [2.0], [8.0]])
    both = [merge(samples, rule(segments=[0], rp_variance=of), past_rp=past(4.0)) for of in ("batch", "recent")]
    assert both[0].weight_rp[0] == both[1].weight_rp[0] == pytest.approx(3 / 5)


def test_merge_variance_obeys_the_harmonic_law():
    """True variances as weights: the merged variance is 1 / (1 / v_rp + 1 / v_es). Over 3,000 draws, 4 standard errors."""
    random = np.random.default_rng(2)
    v_rp, v_es, draws = 4.0, 1.0, 3000
    weight = inverse_variance(np.array([v_rp]), np.array([v_es]))[0]
    merged = weight * random.normal(0, v_rp**0.5, draws) + (1 - weight) * random.normal(0, v_es**0.5, draws)
    law = 1 / (1 / v_rp + 1 / v_es)
    assert weight == pytest.approx(0.2)
    assert merged.var(ddof=1) == pytest.approx(law, abs=4 * law * (2 / draws) ** 0.5)


def test_merge_is_exact_in_order_and_rounds_in_groups():
    samples = random_batch(12)
    first, second = merge(samples, rule()), merge(list(samples), rule())
    assert first.gradient.tobytes() == second.gradient.tobytes()
    grouped = [
        sample(
            "a",
            k,
            rp=moments.combine_all([s.rp for s in part], SIZE),
            es=moments.combine_all([s.es for s in part], SIZE),
        )
        for k, part in enumerate((samples[:5], samples[5:6], samples[6:]))
    ]
    np.testing.assert_allclose(merge(grouped, rule()).gradient, first.gradient, rtol=1e-12)


def test_exploded_huge_deviations_count():
    samples = random_batch(4)
    m2 = np.zeros(SIZE)
    m2[1] = 1e40
    samples[0] = samples[0]._replace(rp=moments.Moments(2, np.zeros(SIZE), m2))
    merged = merge(samples, rule())
    assert merged.fallback == 1
    assert merged.gradient[1] == merged.es.mean[1]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("value", [1, np.nan, -np.inf, EXPLODED, -EXPLODED])
@pytest.mark.parametrize("factor", [1, 1.01])
def test_calm_is_the_negation_of_exploded(count, value, factor):
    mean = np.zeros(SIZE)
    mean[3] = value * factor
    rp = moments.Moments(count, mean, np.zeros(SIZE))
    assert calm(rp) == (not exploded(rp).any()) == (abs(value * factor) <= EXPLODED)


@pytest.mark.parametrize(("m2", "is_calm"), [(2 * EXPLODED**2, True), (2.01 * EXPLODED**2, False), (np.nan, False)])
def test_calm_large_deviations_are_not_calm(m2, is_calm):
    rp = moments.Moments(2, np.zeros(SIZE), np.where(np.arange(SIZE) == 1, m2, 0.0))
    assert calm(rp) == (not exploded(rp).any()) == is_calm


def test_merge_example_in_its_docstring_runs() -> None:
    result = doctest.testmod(merge_module)
    assert result.attempted >= 9 and result.failed == 0
