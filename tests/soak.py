"""A long run under faults: `python tests/soak.py --minutes 60` does harm every 20 s, in turns with quiet stretches.

It asks how many updates per second are left, whether memory and file descriptors of learner and fleet stay flat, and
the oracle: theta equals the replay of the journal, no sample is applied twice, every answer has a verdict, and what
was answered as accepted was applied, but for the batches that died with a learner. Its report is one JSON object.
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
from helpers.cluster import Scene, ask_oracle, launched, start_cluster, surrounded, until
from helpers.faults import Fault, Havoc
from helpers.ray_environment import ray

from cluster.actors.ray_errors import unwrap
from cluster.runs import directory
from learner.history import read_history

EVERY = 20.0  # seconds from fault to fault
LOOK = 5.0  # seconds from one look at the processes to the next
KEPT = 0.8  # of the quiet rate, to be reached


class Stretch(NamedTuple):
    """A part of the run, in unix seconds."""

    quiet: bool
    begin: float
    end: float


class Struck(NamedTuple):
    """A fault that happened."""

    kind: str
    time: float  # unix seconds


class Soak:
    """A run that is watched and harmed."""

    def __init__(self, scene: Scene, havoc: Havoc, workers: int):
        self._scene, self._havoc, self._workers = scene, havoc, workers
        handles = scene.handles
        self.watched = {
            "learner": resources.Watched(lambda: unwrap(handles.learner.pid.remote)),
            "fleet": resources.Watched(lambda: unwrap(handles.fleet.pid.remote)),
        }
        self.stretches: list[Stretch] = []
        self.struck: list[Struck] = []

    def quiet(self, seconds: float) -> None:
        begin = time.time()
        self._watch(begin + seconds)
        self.stretches.append(Stretch(True, begin, time.time()))

    def faulty(self, faults: int) -> None:
        """Ends when all is well again after the last fault: the time that this takes counts."""
        begin = time.time()
        for k in range(faults):
            fault = self._strike()
            self._watch(begin + EVERY * k + fault.seconds)
            fault.heal()
            self._watch(begin + EVERY * (k + 1))
        self._scene.reach(self._workers, 120)
        self._scene.go_on()
        self.stretches.append(Stretch(False, begin, time.time()))

    def _strike(self) -> Fault:
        done: list[Fault] = []

        def strike() -> bool:
            done.append(self._havoc.strike())
            return True

        until(strike, 60)
        self.struck.append(Struck(done[0].kind, time.time()))
        print(time.strftime("%X"), done[0].kind, file=sys.stderr, flush=True)
        return done[0]

    def _watch(self, end: float) -> None:
        """Looks at the processes until then."""
        while (left := end - time.time()) > 0:
            for role in self.watched.values():
                try:
                    role.look(time.time())
                except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError):
                    continue  # being restarted
            time.sleep(min(LOOK, left))


def plan(minutes: float) -> tuple[int, int, float]:
    """Cycles, faults of each, and seconds of each quiet stretch, of which there is one more than cycles."""
    cycles = max(2, round(minutes / 10))
    quiet = 60 * minutes / (5 * cycles + 1)
    return cycles, max(1, round(4 * quiet / EVERY)), quiet


def rates(stretches: list[Stretch], times: np.ndarray) -> list[float]:
    """Updates per second of each stretch, from the times of all updates."""
    return [float(((times >= s.begin) & (times < s.end)).sum()) / (s.end - s.begin) for s in stretches]


def kept(stretches: list[Stretch], found: list[float]) -> float:
    """Updates of the faulty stretches over those that the quiet ones around each let expect."""
    harmed = [k for k, stretch in enumerate(stretches) if not stretch.quiet]
    length = np.array([stretches[k].end - stretches[k].begin for k in harmed])
    expected = np.array([(found[k - 1] + found[k + 1]) / 2 for k in harmed])
    return float(length @ np.array([found[k] for k in harmed]) / (length @ expected))


def seconds_lost(struck: list[Struck], times: np.ndarray, quiet_rate: float) -> dict[str, dict[str, float]]:
    """For each kind of fault its number, and how many seconds of quiet work are missing, in the mean, before the next."""
    lost: dict[str, list[float]] = {}
    for kind, when in struck:
        done = ((times >= when) & (times < when + EVERY)).sum()
        lost.setdefault(kind, []).append(EVERY - float(done) / quiet_rate)
    return {kind: {"count": len(own), "seconds_lost": round(float(np.mean(own)), 2)} for kind, own in lost.items()}


def ask_witnesses(folder: Path, run: directory.RunDirectory) -> dict[str, Any]:
    """Compares what the workers were told with what was applied. Raises AssertionError."""
    applied, told = set(ask_oracle(run).names), dict[tuple[str, int], str]()
    for path in (folder / "replies").iterdir():
        for line in path.read_text().splitlines():
            sequence, verdict = line.split()
            assert (path.name, int(sequence)) not in told, f"{path.name} was answered twice about {sequence}"
            told[path.name, int(sequence)] = verdict
    verdicts = Counter(told.values())
    assert set(verdicts) <= {"accepted", "duplicate", "stale", "wrong_epoch"}, verdicts
    taken = {name for name, verdict in told.items() if verdict in ("accepted", "duplicate")}
    lives = len(list((run.path / "epochs").glob("*.json")))
    assert len(taken - applied) <= lives * run.config().outer.batch_samples  # the one at the end of each
    assert len(applied - taken) <= len(list((folder / "replies").iterdir()))  # killed between sample and answer
    return {"applied": len(applied), "verdicts": dict(verdicts), "lost_with_learners": len(taken - applied)}


def soak(folder: Path, minutes: float, workers: int = 8, program: str = "mixed", seed: int = 0) -> dict[str, Any]:
    """The report. Raises AssertionError when the oracle is contradicted."""
    began, load = time.monotonic(), []
    with surrounded(folder):
        cluster = start_cluster(3)
        try:
            with launched(folder, "soak", workers, program=f"witness:{program}") as scene:
                run = Soak(scene, Havoc(scene, cluster, seed), workers)
                scene.go_on(seconds=60)
                cycles, faults, quiet = plan(minutes)
                for _ in range(cycles):
                    run.quiet(quiet)
                    run.faulty(faults)
                    load.append(os.getloadavg()[0])
                run.quiet(quiet)
                ends = scene.fleet()
        finally:
            cluster.shutdown()
        oracle = ask_witnesses(folder, scene.run)
        report = describe(run, np.array([line.time for line in read_history(scene.run.path)]))
    return {
        "seconds": round(time.monotonic() - began),
        "setting": {"workers": workers, "program": program, "nodes": 3, "seed": seed, "fault_every_seconds": EVERY},
        "cores": os.cpu_count(),
        "load": [round(x, 1) for x in load],
        **report,
        "oracle": oracle,
        "given_up": ends.abandoned,
    }


def describe(run: Soak, times: np.ndarray) -> dict[str, Any]:
    found = rates(run.stretches, times)
    quiet = [rate for rate, stretch in zip(found, run.stretches) if stretch.quiet]
    processes = {role: resources.summary(watched.readings) for role, watched in run.watched.items()}
    return {
        "kept": round(kept(run.stretches, found), 3),
        "target": KEPT,
        "quiet_updates_per_second": [round(rate, 2) for rate in quiet],
        "faulty_updates_per_second": [round(r, 2) for r, s in zip(found, run.stretches) if not s.quiet],
        "faults": seconds_lost(run.struck, times, float(np.mean(quiet))),
        "flat": all(role[field]["flat"] for role in processes.values() for field in resources.FIELDS),
        "processes": processes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--program", choices=("stubs", "mixed"), default="mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="where the report goes; default: standard output")
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
