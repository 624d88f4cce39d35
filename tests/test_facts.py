"""Facts of samples: what an aggregate of them reports."""

from common.facts import Facts, merge


def test_merge_adds_counts_and_averages_durations() -> None:
    one, two = Facts(40.0, 1.0, 0.0, 0.5, 0.02), Facts(60.0, 0.0, 2.0, 1.5, 0.04)
    assert merge([one, two]) == Facts(100.0, 1.0, 2.0, 1.0, 0.03)


def test_merge_unreported_fact_counts_as_zero_if_one_is_reported() -> None:
    assert merge([Facts(40.0), Facts(task_seconds=1.0)]) == Facts(40.0, task_seconds=0.5)
    assert merge([Facts(rp_clipped=2.0), Facts(), Facts(rp_clipped=1.0)]) == Facts(rp_clipped=3.0)


def test_merge_fact_that_nobody_reports_stays_unreported() -> None:
    assert merge([Facts(), Facts()]) == Facts()
