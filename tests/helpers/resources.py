"""Memory and file descriptors of processes that are watched over a long time and through restarts, and their trends."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FIELDS = ("rss_mib", "uss_mib", "descriptors")
YOUNG = 30.0  # seconds in which a process still imports and compiles
SLACK = {"rss_mib": 8.0, "uss_mib": 8.0, "descriptors": 8.0}  # growth that is none


class Reading(NamedTuple):
    """One process at one moment."""

    time: float  # seconds
    pid: int
    rss_mib: float
    uss_mib: float  # memory that no other process shares
    descriptors: float


def read(pid: int, now: float) -> Reading | None:
    """None when the process is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        count = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in rollup.splitlines()[1:])}
    return Reading(now, pid, kib["Rss"] / 1024, (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, count)


class Watched:
    """One role, whose process may be replaced by another one."""

    def __init__(self, find: Callable[[], int]):
        """`find` gives the process id of the present life."""
        self._find, self._pid = find, 0
        self.readings: list[Reading] = []

    def look(self, now: float) -> None:
        reading = read(self._pid, now) if self._pid else None
        if reading is None:
            self._pid = self._find()
            reading = read(self._pid, now)
        if reading is not None:
            self.readings.append(reading)


def settled(readings: Iterable[Reading]) -> list[Reading]:
    """Without the youth of each life."""
    born: dict[int, float] = {}
    return [r for r in readings if r.time - born.setdefault(r.pid, r.time) >= YOUNG]


def slopes(readings: list[Reading], field: str) -> tuple[float, float]:
    """Growth per hour by least squares: over the whole time, and within the lives, each with a level of its own."""
    time = np.array([r.time for r in readings]) / 3600
    value = np.array([getattr(r, field) for r in readings])
    life = np.array([r.pid for r in readings])
    within = np.zeros((2, len(time)))
    for pid in np.unique(life):
        own = life == pid
        within[:, own] = time[own] - time[own].mean(), value[own] - value[own].mean()
    return _slope(time - time.mean(), value - value.mean()), _slope(*within)


def _slope(time: np.ndarray, value: np.ndarray) -> float:
    """Of centred numbers; 0 where there is nothing to be seen."""
    spread = float(time @ time)
    return float(time @ value) / spread if spread > 0 else 0.0


def summary(readings: list[Reading]) -> dict[str, Any]:
    """Of the last two thirds of the time: means and growth per hour, JSON-able.

    Flat is what, over that time, grows by less than a twentieth of its mean, or than `SLACK`.
    """
    first, last = readings[0].time, readings[-1].time
    late = [r for r in settled(readings) if r.time >= first + (last - first) / 3]
    hours = 2 * (last - first) / 3 / 3600
    found: dict[str, Any] = {"lives": len({r.pid for r in readings}), "readings": len(late)}
    for field in FIELDS:
        values = [getattr(r, field) for r in late]
        across, within = slopes(late, field) if late else (0.0, 0.0)
        found[field] = {
            "mean": round(float(np.mean(values or [0.0])), 1),
            "largest": round(max(values, default=0.0), 1),
            "per_hour": round(across, 2),
            "per_hour_within_lives": round(within, 2),
            "flat": bool(across * hours <= max(0.05 * np.mean(values or [0.0]), SLACK[field])),
        }
    return found
