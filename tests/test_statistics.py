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


def test_bootstrap_of_one_sample_is_a_point():
    assert statistics.bootstrap(np.array([3.0])) == (3.0, 3.0, 3.0)


def test_difference_of_two_sets_has_the_sign_of_the_means():
    gap = statistics.difference(np.array([3.0, 3.1, 2.9]), np.array([1.0, 1.1, 0.9]))
    assert gap.value == pytest.approx(2.0) and 1.8 < gap.low < gap.high < 2.2
    assert str(gap).startswith("2 (")


def test_paired_has_students_interval():
    """Three gaps 1, 2, 3: mean 2, standard error 1 / sqrt 3, t of 2 degrees of freedom 4.303."""
    interval = statistics.paired(np.array([11.0, 22.0, 33.0]), np.array([10.0, 20.0, 30.0]))
    assert interval == pytest.approx((2.0, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)


@pytest.mark.parametrize("wins, p", [(5, 2 / 32), (0, 2 / 32), (4, 12 / 32)])
def test_sign_test_of_five_tosses_by_hand(wins, p):
    assert statistics.sign_test(wins, 5) == pytest.approx(p)


def test_sign_test_of_a_draw_is_one():
    assert statistics.sign_test(3, 6) == 1.0
