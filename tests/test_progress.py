"""The figures of a run, by hand numbers."""

import pytest
from helpers import run_files

from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.progress import RECENT, duration, line, number, summarise, worker_counts
from common.config import OuterConfig
from common.update_record import Staleness, UpdateRecord, expected_updates

FLEET = FleetStatus(target=4, running=3)


def record(version: int, time: float, loss: float = 1.0) -> UpdateRecord:
    made = run_files.history(1)[0]._replace(version=version, time=time, loss=loss, samples=8, inner_steps=400)
    return made._replace(weight_rp=made.weight_rp._replace(mean=0.5), staleness=Staleness(0.25, 1))


def test_summarise_measures_rates_between_the_updates() -> None:
    records = [record(v, 100.0 + 2 * v, loss=float(v)) for v in range(1, 6)]  # 0.5 updates a second
    p = summarise(records, version=5, target=25, fleet=FLEET, now=113.0)
    assert p.loss == pytest.approx(3.0) and p.weight_rp == 0.5 and p.staleness == 0.25
    assert p.samples_per_second == pytest.approx(4 * 8 / 8) and p.steps_per_second == pytest.approx(4 * 400 / 8)
    assert p.seconds_left == pytest.approx(20 / 0.5 - 3)
    assert (p.workers, p.workers_wanted) == (3, 4)


def test_summarise_uses_recent_updates_only() -> None:
    records = [record(v, float(v), loss=9.0) for v in range(50)] + [record(v, float(v)) for v in range(50, 50 + RECENT)]
    assert summarise(records, 70, 100, FLEET, now=70.0).loss == 1.0


def test_summarise_leaves_out_the_pause_before_a_resume() -> None:
    """An update per second, a stop of a day, and then the same pace."""
    before = [record(v, 1000.0 + v) for v in range(1, 21)]
    opened = summarise(before, 20, 120, FLEET, now=90_000.0, epoch=2)
    assert (opened.samples_per_second, opened.steps_per_second, opened.seconds_left) == (None, None, None)
    assert opened.loss == 1.0
    after = [record(20 + k, 90_000.0 + k)._replace(epoch=2) for k in (1, 2, 3)]
    for epoch in (2, None):
        p = summarise(before + after, 23, 123, FLEET, now=90_003.0, epoch=epoch)
        assert p.samples_per_second == pytest.approx(8) and p.seconds_left == pytest.approx(100)


def test_summarise_before_two_updates_knows_no_rates() -> None:
    for records in ([], [record(1, 5.0)]):
        p = summarise(records, len(records), 10, FLEET, now=6.0)
        assert p.samples_per_second is None and p.seconds_left is None
        assert "? left" in line(p) and ("loss ?" in line(p)) == (not records)


def test_expected_updates_follow_the_steps_of_the_newest() -> None:
    newest = record(10, 0.0)._replace(inner_steps=400, inner_steps_total=3000)
    outer = OuterConfig(updates=100, inner_steps=5000)
    assert expected_updates(outer, newest) == 15
    assert expected_updates(outer, None) == expected_updates(outer, record(10, 0.0)) == 100
    assert expected_updates(outer, newest._replace(inner_steps_total=5200)) == 10
    assert expected_updates(OuterConfig(updates=12, inner_steps=5000), newest) == 12
    assert expected_updates(OuterConfig(updates=12), newest) == 12


def test_durations_and_numbers_as_text() -> None:
    assert [duration(s) for s in (None, 0.4, 59.6, 3599, 7260)] == [
        "?",
        "0 s",
        "1 min 00 s",
        "59 min 59 s",
        "2 h 01 min",
    ]
    assert [number(x) for x in (None, 0.012345, 12.345, 123456.0)] == ["?", "0.0123", "12.3", "123,456"]


def test_duration_after_a_clock_was_set_back_is_unknown() -> None:
    assert [duration(s) for s in (-5.0, float("nan"), float("inf"))] == ["?"] * 3


def test_worker_counts_leave_out_states_without_workers() -> None:
    assert (
        worker_counts(FleetStatus(target=9, starting=1, running=7, abandoned=1), ", ")
        == "1 starting, 7 running, 1 abandoned"
    )
