"""Memory and file descriptors of processes over a long time, through restarts, and their trends."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import psutil

FIELDS = ("rss_mib", "uss_mib", "descriptors")
STARTUP_S = 30.0  # in which a process still imports and compiles
SLACK = {"rss_mib": 8.0, "uss_mib": 8.0, "descriptors": 8.0}  # growth that does not count


class Reading(NamedTuple):
    """The resources of one process at one moment."""

    time: float  # seconds
    pid: int
    rss_mib: float
    uss_mib: float  # memory that no other process shares
    descriptors: float


def read(pid: int, now: float) -> Reading | None:
    """Reads a process's resources; None when it has ended."""
    try:
        process = psutil.Process(pid)
        memory, descriptors = process.memory_full_info(), process.num_fds()
    except psutil.Error:
        return None
    return Reading(now, pid, memory.rss / 2**20, memory.uss / 2**20, descriptors)


class Watched:
    """Readings of one role, whose process may be replaced."""

    def __init__(self, find: Callable[[], int]):
        """`find` returns the process id of the present incarnation."""
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
    """The readings without the start-up of each process."""
    born: dict[int, float] = {}
    return [r for r in readings if r.time - born.setdefault(r.pid, r.time) >= STARTUP_S]


def slopes(readings: list[Reading], field: str) -> tuple[float, float]:
    """Growth per hour by least squares: over all of the time, and within processes, each with its own level."""
    time = np.array([r.time for r in readings]) / 3600
    value = np.array([getattr(r, field) for r in readings])
    pids = np.array([r.pid for r in readings])
    within = np.zeros((2, len(time)))
    for pid in np.unique(pids):
        own = pids == pid
        within[:, own] = time[own] - time[own].mean(), value[own] - value[own].mean()
    return _slope(time - time.mean(), value - value.mean()), _slope(*within)


def _slope(time: np.ndarray, value: np.ndarray) -> float:
    """The slope of centred values; 0 where time does not vary."""
    spread = float(time @ time)
    return float(time @ value) / spread if spread > 0 else 0.0


def summary(readings: list[Reading]) -> dict[str, Any]:
    """Means and growth per hour over the last two thirds of the time, JSON-able.

    A field is flat if over that time it grows by less than 5 % of its mean, or by less than `SLACK`.
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
