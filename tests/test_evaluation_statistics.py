"""Statistics over tasks: scipy's on recorded data, and AlgoPerf's score by hand numbers."""

import numpy as np
import pytest
from scipy.stats import bootstrap, trim_mean

from workers.evaluation.statistics import (
    algoperf_score,
    estimate,
    interquartile_mean,
    mean_of_logs,
    performance_ratios,
    profile,
)

RECORDED = np.array([1.31, 0.92, 1.74, 1.02, 0.0, 1.18, 1.55, 2.4, 1.07, 1.29, 1.33, 0.88])


def test_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    assert interquartile_mean(np.array([9.0, 1.0, 2.0, -50.0])) == 1.5
    assert interquartile_mean(RECORDED) == trim_mean(RECORDED, 0.25)


def test_estimate_is_the_bca_bootstrap_of_scipy() -> None:
    found = estimate(RECORDED)
    expected = bootstrap(
        (RECORDED,),
        lambda x, axis: trim_mean(x, 0.25, axis=axis),
        n_resamples=2000,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found.low, found.high) == (expected.low, expected.high)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high


def test_estimate_of_fewer_than_ten_tasks_has_no_interval() -> None:
    assert estimate(RECORDED[:9])[1:] == (None, None)


def test_estimate_of_equal_values_is_a_point() -> None:
    assert estimate(np.ones(12)) == (1.0, 1.0, 1.0)


def test_estimate_where_one_task_differs_is_finite() -> None:
    found = estimate(np.array([2.0, *np.ones(11)]))
    assert found.low == 1.0 and found.high is not None and found.high >= 1.0


def test_mean_of_logs_is_geometric_and_zero_with_a_failure() -> None:
    assert mean_of_logs(np.array([0.5, 2.0, 8.0])) == pytest.approx(2.0)
    assert mean_of_logs(np.array([0.0, 4.0])) == 0.0


def test_performance_ratios_keep_what_is_unsolved() -> None:
    times = {"a": np.array([1.0, 6.0, np.inf]), "b": np.array([2.0, 3.0, np.inf])}
    ratios = performance_ratios(times)
    assert ratios["a"].tolist() == [1.0, 2.0, np.inf] and ratios["b"].tolist() == [2.0, 1.0, np.inf]


def test_profile_is_monotone_and_bounded() -> None:
    ratios = 1 + np.random.default_rng(0).exponential(size=30)
    curve = profile(np.append(ratios, np.inf), np.linspace(1, 10, 50))
    assert (np.diff(curve) >= 0).all() and curve.min() >= 0 and curve.max() <= 30 / 31


def test_algoperf_score_is_the_area_by_hand() -> None:
    assert algoperf_score(np.array([1.0, 1.0])) == 1.0
    assert algoperf_score(np.array([1.0, 2.5, 4.0, np.inf])) == pytest.approx((1 + 0.5) / 4)
    ratios = 1 + np.random.default_rng(1).exponential(size=10)
    tau = np.linspace(1, 4, 30001)
    assert algoperf_score(ratios) == pytest.approx(np.trapezoid(profile(ratios, tau), tau) / 3, abs=1e-4)
