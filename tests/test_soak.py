"""The arithmetic of the soak test, and a short soak with each kind of fault once."""

import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import soak
from helpers import resources
from helpers.resources import Reading
from soak import EVERY, Injected, Period


@pytest.mark.parametrize("minutes", [3, 10, 60])
def test_plan_periods_fill_the_time(minutes: float) -> None:
    cycles, faults, quiet = soak.plan(minutes)
    total = (cycles + 1) * quiet + cycles * faults * EVERY
    assert total == pytest.approx(60 * minutes, rel=0.1)
    assert faults * EVERY == pytest.approx(4 * quiet, rel=0.3)


def test_kept_compares_with_the_quiet_periods_around() -> None:
    periods = [Period(True, 0, 10), Period(False, 10, 30), Period(True, 30, 40)]
    times = np.concatenate([np.arange(0, 10, 0.1), np.arange(10, 30, 0.25), np.arange(30, 40, 0.5)]) + 1e-6
    found = soak.rates(periods, times)
    assert found == [10, 4, 2]
    assert soak.kept(periods, found) == pytest.approx(4 / 6)


def test_kept_weights_periods_by_length() -> None:
    periods = [
        Period(True, 0, 1),
        Period(False, 1, 4),
        Period(True, 4, 5),
        Period(False, 5, 6),
        Period(True, 6, 7),
    ]
    assert soak.kept(periods, [1.0, 1.0, 1.0, 0.0, 1.0]) == pytest.approx(0.75)


def test_seconds_lost_counts_missing_updates() -> None:
    times = np.setdiff1d(np.arange(0, 100, 0.5), np.arange(20, 24, 0.5))
    lost = soak.seconds_lost([Injected("a", 20.0), Injected("a", 40.0), Injected("b", 60.0)], times, 2.0)
    assert lost == {"a": {"count": 2, "seconds_lost": 2.0}, "b": {"count": 1, "seconds_lost": 0.0}}


def readings(processes: int, growth: float, step: float) -> list[Reading]:
    """Processes of ten minutes each: `growth` per hour within, `step` from one to the next."""
    return [
        Reading(600.0 * pid + t, pid, 0, 100 + step * pid + growth * t / 3600, 20)
        for pid in range(processes)
        for t in np.arange(0, 600, 5.0)
    ]


def test_slopes_separate_growth_within_processes() -> None:
    leaking = readings(6, growth=30.0, step=0.0)
    across, within = resources.slopes(leaking, "uss_mib")
    assert within == pytest.approx(30) and across < 3
    across, within = resources.slopes(readings(6, growth=0.0, step=10.0), "uss_mib")
    assert within == pytest.approx(0, abs=1e-9) and across == pytest.approx(60, rel=0.1)
    assert resources.slopes(leaking, "descriptors") == (0, 0)
    assert resources.summary(readings(6, 0.0, 10.0))["uss_mib"]["flat"] is False
    assert resources.summary(readings(6, 0.0, 1.0))["uss_mib"]["flat"] is True


def test_settled_leaves_out_the_start_of_each_process() -> None:
    kept = resources.settled(readings(2, 0.0, 0.0))
    assert [min(r.time for r in kept if r.pid == pid) for pid in (0, 1)] == [
        resources.STARTUP_S,
        600 + resources.STARTUP_S,
    ]


ALLOCATING = """
import os, sys
print(flush=True), sys.stdin.readline()
block = b"1" * (32 << 20)
files = [open(os.devnull) for _ in range(3)]
print(flush=True), sys.stdin.readline()
"""


def test_read_sees_memory_and_descriptors() -> None:
    """Read in another process: pytest's own one may free memory of earlier tests between two readings."""
    with subprocess.Popen([sys.executable, "-c", ALLOCATING], stdin=PIPE, stdout=PIPE, text=True, bufsize=1) as other:
        other.stdout.readline()
        before = resources.read(other.pid, 0.0)
        other.stdin.write("\n")
        other.stdout.readline()
        after = resources.read(other.pid, 0.0)
        other.stdin.write("\n")
    assert before is not None and after is not None
    assert after.uss_mib - before.uss_mib == pytest.approx(32, abs=1)
    assert after.rss_mib - before.rss_mib == pytest.approx(32, abs=1)
    assert after.descriptors - before.descriptors == 3
    assert resources.read(2**22 + 1, 0.0) is None


def test_look_finds_the_successor_of_a_dead_process() -> None:
    found = iter([2**22 + 1, os.getpid()])
    watched = resources.Watched(lambda: next(found))
    watched.look(0.0)
    assert not watched.readings
    watched.look(1.0)
    watched.look(2.0)
    assert [(r.time, r.pid) for r in watched.readings] == [(1.0, os.getpid()), (2.0, os.getpid())]


@pytest.mark.cluster
@pytest.mark.faults
@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.parametrize("kept", [soak.KEPT / 2, pytest.param(soak.KEPT, marks=pytest.mark.slow)])
def test_soak_run_under_faults_continues_and_loses_nothing(tmp_path: Path, kept: float) -> None:
    """The checks are part of it. Three minutes next to other tests say little about rates, so the full target is
    required on a quiet machine only (`-m slow`), and nothing about trends: run `python tests/soak.py` for those.
    """
    report = soak.soak(tmp_path, minutes=3)
    assert {kind: counts["count"] for kind, counts in report["faults"].items()} == dict.fromkeys(
        soak.FaultInjector.KINDS, 1
    )
    assert report["kept"] > kept, report
    assert report["given_up"] == 0
    for role in report["processes"].values():
        assert role["descriptors"]["largest"] < 100 and role["uss_mib"]["largest"] < 300, report
