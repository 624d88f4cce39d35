import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.moments import Moments, combine, combine_all, empty, of, quantiles, variance

ROWS = np.random.default_rng(0).normal(size=(9, 5)) * np.array([1e-10, 1e-3, 1, 1e3, 1e10]) + 7


def test_of_known_numbers():
    m = of(np.array([[1.0, 10.0], [2.0, 10.0], [6.0, 40.0]]))
    assert m.count == 3
    np.testing.assert_array_equal(m.mean, [3, 20])
    np.testing.assert_array_equal(m.m2, [14, 600])
    np.testing.assert_array_equal(variance(m), [7, 300])


def test_of_float32_rows_are_summed_in_float64():
    rows = np.full((3, 1), 16777217.0 / 3, np.float32)
    assert of(rows).mean.dtype == np.float64
    assert of(rows).mean[0] == float(rows[0, 0])


@given(st.lists(st.integers(0, 3), min_size=9, max_size=9), st.permutations(range(4)))
def test_combine_any_grouping_gives_the_same_moments(groups, turn):
    parts = [of(ROWS[np.array(groups) == g]) for g in turn]
    whole, merged = of(ROWS), combine_all(parts, 5)
    assert merged.count == 9
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.m2, whole.m2, rtol=1e-12, atol=1e-12 * 49)


def test_combine_same_order_gives_the_same_bits():
    parts = [of(row[None]) for row in ROWS]
    first, second = combine_all(parts, 5), combine_all(iter(parts), 5)
    assert first.mean.tobytes() == second.mean.tobytes()
    assert first.m2.tobytes() == second.m2.tobytes()


@given(st.lists(st.integers(0, 3), min_size=9, max_size=9), st.sampled_from([0.0, np.nan, np.inf, 1e200]))
def test_combine_all_equals_the_fold_bit_for_bit(groups, value):
    rows = ROWS.copy()
    rows[4, 2] += value
    parts = [of(rows[np.array(groups) == g]) for g in range(4)]
    given = [part.mean.copy() for part in parts]
    merged, fold = combine_all(parts, 5), functools.reduce(combine, parts)
    assert merged.count == fold.count
    np.testing.assert_array_equal(merged.mean, fold.mean)
    np.testing.assert_array_equal(merged.m2, fold.m2)
    for part, before in zip(parts, given):
        np.testing.assert_array_equal(part.mean, before)


def test_combine_empty_is_neutral():
    m = of(ROWS)
    for merged in (combine(m, empty(5)), combine(empty(5), m)):
        assert merged.count == 9
        np.testing.assert_array_equal(merged.mean, m.mean)
    assert combine_all([], 5).count == 0
    assert of(np.zeros((0, 5))).mean.shape == (5,)


def test_variance_unknown_is_infinite():
    assert np.isinf(variance(empty(2))).all()
    assert np.isinf(variance(of(ROWS[:1]))).all()
    np.testing.assert_array_equal(variance(of(np.array([[1.0], [3.0]]))), [2])
    np.testing.assert_array_equal(variance(Moments(3, np.zeros(2), np.array([np.inf, 2.0]))), [np.inf, 1])
    rows = np.ones((3, 4))
    rows[1] = [1, np.nan, np.inf, -np.inf]
    m = of(rows)
    assert np.isfinite(m.mean).tolist() == [True, False, False, False]
    np.testing.assert_array_equal(variance(m), [0, np.inf, np.inf, np.inf])
    merged = combine_all([of(row[None]) for row in rows], 4)
    np.testing.assert_array_equal(variance(merged), [0, np.inf, np.inf, np.inf])


def test_variance_has_a_floor():
    m = Moments(4, np.zeros(2), np.array([0.0, 12.0]))
    np.testing.assert_array_equal(variance(m, 1e-8), [1e-8, 4])


@pytest.mark.parametrize("scale", [1e-150, 1e20, 1e150, 1e300])
def test_moments_any_scale_gives_no_warning(scale):
    parts = [of(np.array([[scale]])), of(np.array([[-scale]]))]
    merged = combine_all(parts, 1)
    assert merged.mean[0] == 0
    assert merged.m2[0] == pytest.approx(2 * scale * scale if scale < 1e154 else np.inf)


def test_quantiles_of_all_values_are_infinite_above_the_finite():
    levels = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    finite = np.random.default_rng(0).normal(size=9)
    np.testing.assert_array_equal(quantiles(finite, levels), np.quantile(finite, levels))
    mixed = np.array([np.inf, 1.0, np.nan, 3.0, 2.0])
    np.testing.assert_array_equal(quantiles(mixed, levels), [1, 2, 3, np.inf, np.inf])
    assert quantiles(np.array([1.0, 2.0, np.inf]), np.array([0.25, 0.6])).tolist() == [1.5, np.inf]
    assert np.isinf(quantiles(np.full(3, np.nan), levels)).all()
