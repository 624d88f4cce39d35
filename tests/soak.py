"""A long run under faults: `python tests/soak.py --minutes 60` injects one every 20 s, between quiet periods.

It measures the fraction of updates per second that remains, and whether memory and file descriptors of learner and
fleet stay flat. At the end it checks that theta equals the replay of the journal, that no sample was applied twice,
that every reply has a verdict, and that what was accepted was applied, except for the batches lost with a learner. The
report is one JSON object.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from helpers import resources
from helpers.cluster import Scene, check_run, launched, start_cluster, surrounded, until
from helpers.faults import Fault, FaultInjector
from helpers.ray_environment import ray

from cluster.actors.ray_errors import unwrap
from cluster.runs import directory
from common import cores
from learner.history import read_history

EVERY = 20.0  # seconds from fault to fault
LOOK = 5.0  # seconds between two readings of the processes
KEPT = 0.8  # target: fraction of the quiet update rate under faults


class Period(NamedTuple):
    """A part of the run, in unix seconds."""

    quiet: bool
    begin: float
    end: float


class Injected(NamedTuple):
    """A fault that was injected."""

    kind: str
    time: float  # unix seconds


class Soak:
    """A run into which faults are injected, and the readings of its processes."""

    def __init__(self, scene: Scene, injector: FaultInjector, workers: int):
        self._scene, self._injector, self._workers = scene, injector, workers
        handles = scene.handles
        self.watched = {
            "learner": resources.Watched(lambda: unwrap(handles.learner.pid.remote)),
            "fleet": resources.Watched(lambda: unwrap(handles.fleet.pid.remote)),
        }
        self.periods: list[Period] = []
        self.injected: list[Injected] = []

    def quiet(self, seconds: float) -> None:
        begin = time.time()
        self._watch(begin + seconds)
        self.periods.append(Period(True, begin, time.time()))

    def faulty(self, faults: int) -> None:
        """Injects faults. Ends when the run has recovered from the last one; that time counts."""
        begin = time.time()
        for k in range(faults):
            fault = self._inject()
            self._watch(begin + EVERY * k + fault.seconds)
            fault.repair()
            self._watch(begin + EVERY * (k + 1))
        self._scene.reach(self._workers, 120)
        self._scene.advance()
        self.periods.append(Period(False, begin, time.time()))

    def _inject(self) -> Fault:
        done: list[Fault] = []

        def inject() -> bool:
            done.append(self._injector.inject())
            return True

        until(inject, 60)
        self.injected.append(Injected(done[0].kind, time.time()))
        print(time.strftime("%X"), done[0].kind, file=sys.stderr, flush=True)
        return done[0]

    def _watch(self, end: float) -> None:
        """Reads the processes' resources until `end`."""
        while (left := end - time.time()) > 0:
            for role in self.watched.values():
                try:
                    role.look(time.time())
                except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError):
                    continue  # being restarted
            time.sleep(min(LOOK, left))


def plan(minutes: float) -> tuple[int, int, float]:
    """Returns the number of cycles, the faults of each, and the seconds of each quiet period (one more than cycles)."""
    cycles = max(2, round(minutes / 10))
    quiet = 60 * minutes / (5 * cycles + 1)
    return cycles, max(1, round(4 * quiet / EVERY)), quiet


def rates(periods: list[Period], times: np.ndarray) -> list[float]:
    """Updates per second of each period, given the times of all updates."""
    return [float(((times >= s.begin) & (times < s.end)).sum()) / (s.end - s.begin) for s in periods]


def kept(periods: list[Period], found: list[float]) -> float:
    """Updates of the faulty periods, divided by those expected from the quiet periods around each."""
    faulty = [k for k, period in enumerate(periods) if not period.quiet]
    length = np.array([periods[k].end - periods[k].begin for k in faulty])
    expected = np.array([(found[k - 1] + found[k + 1]) / 2 for k in faulty])
    return float(length @ np.array([found[k] for k in faulty]) / (length @ expected))


def seconds_lost(injected: list[Injected], times: np.ndarray, quiet_rate: float) -> dict[str, dict[str, float]]:
    """By kind of fault: the number, and the mean seconds of quiet work that are missing before the next fault."""
    lost: dict[str, list[float]] = {}
    for kind, when in injected:
        done = ((times >= when) & (times < when + EVERY)).sum()
        lost.setdefault(kind, []).append(EVERY - float(done) / quiet_rate)
    return {kind: {"count": len(own), "seconds_lost": round(float(np.mean(own)), 2)} for kind, own in lost.items()}


def check_replies(folder: Path, run: directory.RunDirectory) -> dict[str, Any]:
    """Compares the replies that the workers got with what was applied. Raises AssertionError."""
    applied, replied = set(check_run(run).names), dict[tuple[str, int], str]()
    for path in (folder / "replies").iterdir():
        for line in path.read_text().splitlines():
            sequence, verdict = line.split()
            assert (path.name, int(sequence)) not in replied, f"{path.name} got two replies for {sequence}"
            replied[path.name, int(sequence)] = verdict
    verdicts = Counter(replied.values())
    assert set(verdicts) <= {"accepted", "duplicate", "stale", "wrong_epoch"}, verdicts
    taken = {name for name, verdict in replied.items() if verdict in ("accepted", "duplicate")}
    epochs = len(list(run.epochs.glob("*.json")))
    assert len(taken - applied) <= epochs * run.config().outer.batch_samples  # the last batch of each
    assert len(applied - taken) <= len(list((folder / "replies").iterdir()))  # killed between sample and reply
    return {"applied": len(applied), "verdicts": dict(verdicts), "lost_with_learners": len(taken - applied)}


def soak(folder: Path, minutes: float, workers: int = 8, program: str = "mixed", seed: int = 0) -> dict[str, Any]:
    """Returns the report. Raises AssertionError when a check fails."""
    began, load = time.monotonic(), []
    with surrounded(folder):
        cluster = start_cluster(3)
        try:
            with launched(folder, "soak", workers, program=f"witness:{program}") as scene:
                run = Soak(scene, FaultInjector(scene, cluster, seed), workers)
                scene.advance(seconds=60)
                cycles, faults, quiet = plan(minutes)
                for _ in range(cycles):
                    run.quiet(quiet)
                    run.faulty(faults)
                    load.append(os.getloadavg()[0])
                run.quiet(quiet)
                ends = scene.fleet()
        finally:
            cluster.shutdown()
        oracle = check_replies(folder, scene.run)
        report = describe(run, np.array([line.time for line in read_history(scene.run.path)]))
    return {
        "seconds": round(time.monotonic() - began),
        "setting": {"workers": workers, "program": program, "nodes": 3, "seed": seed, "fault_every_seconds": EVERY},
        "cores": cores.count(),
        "load": [round(x, 1) for x in load],
        **report,
        "oracle": oracle,
        "given_up": ends.abandoned,
    }


def describe(run: Soak, times: np.ndarray) -> dict[str, Any]:
    found = rates(run.periods, times)
    quiet = [rate for rate, period in zip(found, run.periods) if period.quiet]
    processes = {role: resources.summary(watched.readings) for role, watched in run.watched.items()}
    return {
        "kept": round(kept(run.periods, found), 3),
        "target": KEPT,
        "quiet_updates_per_second": [round(rate, 2) for rate in quiet],
        "faulty_updates_per_second": [round(r, 2) for r, s in zip(found, run.periods) if not s.quiet],
        "faults": seconds_lost(run.injected, times, float(np.mean(quiet))),
        "flat": all(role[field]["flat"] for role in processes.values() for field in resources.FIELDS),
        "processes": processes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--program", choices=("stubs", "mixed"), default="mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file of the report; default: standard output")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outertrain-soak-") as folder:
        report = soak(Path(folder), options.minutes, options.workers, options.program, options.seed)
    text = json.dumps(report, indent=1) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
