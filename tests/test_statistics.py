"""Intervals and the sign test, by laws and by hand."""

import numpy as np
import pytest

from common import streams
from workers.figures import statistics


def test_bootstrap_covers_the_mean_as_often_as_it_claims():
    random, covered = np.random.default_rng(0), 0
    for _ in range(60):
        interval = statistics.bootstrap(random.normal(1.0, 2.0, 30))
        assert interval.low <= interval.value <= interval.high
        covered += interval.low < 1.0 < interval.high
    assert covered >= 51  # of 60, at 95 %: fewer in one of a thousand such tests


def test_bootstrap_is_the_percentile_interval_of_numpy():
    """The law of the committed figures: the same draws as the generator of its stream."""
    samples = np.random.default_rng(1).normal(size=(7, 3))
    draws = streams.generator(streams.RESAMPLING).integers(7, size=(statistics.RESAMPLES, 7))
    low, high = np.percentile([np.median(samples[draw]) for draw in draws], [2.5, 97.5])
    assert statistics.bootstrap(samples, np.median) == pytest.approx((np.median(samples), low, high), abs=1e-12)


def test_bootstrap_of_infinite_samples_has_an_infinite_end():
    interval = statistics.bootstrap(np.array([1.0] * 9 + [np.inf]), np.median)
    assert interval.value == interval.low == 1.0
    assert statistics.bootstrap(np.array([1.0] * 4 + [np.inf] * 4), np.median).high == np.inf


def test_bootstrap_of_few_samples_has_no_interval():
    assert statistics.bootstrap(np.array([3.0, 3.1, 2.9, 3.0])) == (3.0, -np.inf, np.inf)


def test_geometric_has_students_interval_of_the_logarithms():
    """Logs 1 to 5: mean 3, standard error sqrt(2.5 / 5), t of 4 degrees of freedom 2.776."""
    interval = statistics.geometric(np.exp([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert np.log(interval) == pytest.approx((3.0, 3 - 2.776 * 0.5**0.5, 3 + 2.776 * 0.5**0.5), abs=1e-3)
    few = statistics.geometric(np.array([1.0, 4.0]))
    assert few == (2.0, -np.inf, np.inf) and few.above(1) is None and "no interval" in str(few)


def test_difference_of_two_sets_has_the_sign_of_the_means():
    gap = statistics.difference(np.array([3.0, 3.1, 2.9, 3.0, 3.0]), np.array([1.0, 1.1, 0.9, 1.2, 0.8]))
    assert gap.value == pytest.approx(2.0) and 1.5 < gap.low < gap.high < 2.5
    assert str(gap).startswith("2 (")
    few = statistics.difference(np.array([3.0, 3.1]), np.array([1.0, 1.1, 0.9]))
    assert few.value == pytest.approx(2.05) and "no interval" in str(few)


def test_paired_has_students_interval():
    """Five gaps 1 to 5: mean 3, standard error sqrt(2.5 / 5), t of 4 degrees of freedom 2.776."""
    interval = statistics.paired(np.array([11.0, 22.0, 33.0, 44.0, 55.0]), np.array([10.0, 20.0, 30.0, 40.0, 50.0]))
    assert interval == pytest.approx((3.0, 3 - 2.776 * 0.5**0.5, 3 + 2.776 * 0.5**0.5), abs=1e-3)


def test_mean_of_few_samples_has_no_interval():
    few = statistics.mean(np.array([1.0, 1.01, 0.99, 1.0]))
    assert (few.low, few.high) == (-np.inf, np.inf) and str(few) == "1 (no interval: fewer than 5 samples)"
    assert few.above(0) is None and few.within(10) is None


def test_mean_of_five_samples_is_covered_as_often_as_claimed():
    random = np.random.default_rng(0)
    intervals = [statistics.mean(random.normal(1.0, 2.0, 5)) for _ in range(400)]
    covered = sum(one.low < 1.0 < one.high for one in intervals)
    assert 362 <= covered <= 396  # of 400, at 95 %: outside in one of a thousand such tests


def test_interval_decides_only_if_it_is_clear_of_the_bound():
    clear, covers = statistics.Interval(1.0, 0.5, 1.5), statistics.Interval(1.0, -0.5, 2.5)
    assert (clear.above(0), clear.above(2), covers.above(0)) == (True, False, None)
    assert (clear.below(2), clear.below(0), covers.below(0)) == (True, False, None)
    assert (clear.within(2), clear.within(0.4), clear.within(1), covers.within(2)) == (True, False, None, None)


def test_every_is_undecided_only_if_nothing_fails():
    assert statistics.every([True, True]) is True and statistics.every([True, None]) is None
    assert statistics.every([None, False]) is False


def test_steadier_errs_as_often_as_it_claims():
    """Equal variances of 6 seeds that share half their noise: a decision in 5 % of 400 cases."""
    random = np.random.default_rng(0)
    shared, own = random.normal(size=(400, 1, 6)), random.normal(size=(400, 2, 6))
    decided = sum(statistics.steadier(*pair) is not None for pair in shared + own)
    assert 6 <= decided <= 36  # outside in one of a thousand such tests
    assert statistics.steadier(0.01 * own[0, 0], own[0, 1]) is True
    assert statistics.steadier(own[0, 1], 0.01 * own[0, 0]) is False
    assert statistics.steadier(own[0, 0, :4], own[0, 1, :4]) is None


@pytest.mark.parametrize("wins, p", [(5, 2 / 32), (0, 2 / 32), (4, 12 / 32)])
def test_sign_test_of_five_tosses_by_hand(wins, p):
    assert statistics.sign_test(wins, 5) == pytest.approx(p)


def test_sign_test_of_a_draw_is_one():
    assert statistics.sign_test(3, 6) == 1.0
