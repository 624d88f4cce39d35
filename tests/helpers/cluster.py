"""Runs of stub workers on a Ray cluster of several raylets, queries of their state, and the checks at their end.

The checks: theta equals the replay of the journal bit for bit, no sample was applied twice, and the applied samples of
each worker are consecutive from the first one: nothing that was acknowledged is lost.
"""

import itertools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.actors import ray_session
from cluster.actors.ray_errors import unwrap
from cluster.launchers import ray_cluster
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.run_status import LearnerReport
from cluster.runs import directory
from cluster.runs.directory import load_theta
from cluster.runs.open import Request, open_run
from helpers.ray_environment import Cluster, ray
from learner.journal import Replay, replay
from learner.status import LearnerStatus

STUB = Path(__file__).parent / "cluster_stub"
CONFIG = """
[task]
family = "quadratic"
inner_steps = 8
[optimizer]
family = "sgd"
[curriculum]
start = 2
end = 4
[outer]
updates = 1000000
batch_samples = 8
journal = true
"""
MEMORY = 80 * 2**20
_NUMBERS = itertools.count()  # of nodes


def start_cluster(nodes: int, cores: int = 8) -> Cluster:
    """Starts a head node without cores, and nodes with `cores` each."""
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "object_store_memory": MEMORY,
        "_system_config": ray_session.SYSTEM,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes):
        add_node(cluster, cores)
    os.environ["RAY_ADDRESS"] = cluster.address
    return cluster


def add_node(cluster: Cluster, cores: int = 8) -> Any:
    """Adds a node. Each has its own folder of copied files, as on machines of its own: in a shared one, Ray deletes and
    unpacks them anew for each node, under the processes of the others.
    """
    own = f"runtime_resources_{next(_NUMBERS)}"
    return cluster.add_node(num_cpus=cores, object_store_memory=MEMORY, runtime_env_dir_name=own)


@contextmanager
def surrounded(folder: Path) -> Iterator[Path]:
    """Runs are kept in `folder`, with their configuration in run.toml; the current folder is the stub's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTERTRAIN_RUNS", str(folder / "runs"))
        patch.setenv("RAY_ADDRESS", "")
        patch.chdir(STUB)
        (folder / "run.toml").write_text(CONFIG)
        yield folder


class Scene:
    """A launched run."""

    def __init__(self, name: str):
        self.name, self.run = name, directory.find(name)
        self.handles = ray_cluster.handles(name)
        self.seconds_to_start = 0.0  # until all workers ran

    def fleet(self) -> FleetStatus:
        return unwrap(self.handles.fleet.status.remote)

    def learner(self) -> LearnerStatus:
        report: LearnerReport = unwrap(self.handles.learner.report.remote)
        return report.learner

    def workers(self) -> dict[str, int]:
        """Process ids of the running workers, by uid."""
        found = unwrap(self.handles.fleet.workers.remote)
        return {uid: unwrap(handle.pid.remote) for uid, handle in found.items()}

    def reach(self, running: int, seconds: float = 60) -> float:
        """Waits until exactly so many workers run and no other is alive; returns the seconds it took."""
        return until(lambda: (now := self.fleet()).running == now.alive == running, seconds)

    def advance(self, updates: int = 3, seconds: float = 30) -> float:
        """Waits for so many further updates; returns the seconds it took."""
        goal = self.learner().version + updates
        return until(lambda: self.learner().version >= goal, seconds)


def until(holds: Callable[[], bool], seconds: float) -> float:
    """Waits until `holds` is true; returns the seconds it took. Raises AssertionError after so many seconds."""
    began = time.monotonic()
    while True:
        try:
            if holds():
                return time.monotonic() - began
        except ray.exceptions.RayActorError:
            pass  # being restarted, which is what the test waits for
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.1)


@contextmanager
def launched(
    surroundings: Path,
    name: str,
    workers: int,
    *overrides: str,
    program: str = "stub:Stub",
    seconds: float = 120,
    worker: dict[str, Any] | None = None,
) -> Iterator[Scene]:
    """A run of stubs on the cluster, all started within `seconds`. At the end it is stopped and checked."""
    overrides = (f"workers.count={workers}", *overrides)
    request = Request(str(surroundings / "run.toml"), name, overrides, resume=name in directory.names())
    opened = open_run(request)
    opened.apply()
    run = opened.run
    config = run.config()
    staged = replace(config, task=replace(config.task, family="stub:Stub"))  # Ray copies the stub's file to all nodes
    with ray_cluster.connected(name, staged):
        ray_cluster.launch(run, workers, spread=True, program=program, worker_options=worker or ray_cluster.WORKER)
        scene = Scene(name)
        scene.seconds_to_start = scene.reach(workers, seconds)
        yield scene
        ray_cluster.stop(name, lambda text: None)
        assert name not in ray_cluster.runs()
    check_run(run)


def check_run(run: directory.RunDirectory) -> Replay:
    """Checks that a run lost and duplicated nothing; returns the replay of its journal. Raises AssertionError."""
    replayed = replay(run.path)
    theta, version = load_theta(run)
    assert replayed.state.version == version and replayed.state.theta.tobytes() == theta.tobytes()
    assert len(set(replayed.names)) == len(replayed.names)
    taken = defaultdict(list)
    for uid, sequence in replayed.names:
        taken[uid].append(sequence)
    epochs = len(list(run.epochs.glob("*.json")))
    held = run.config().outer.batch_samples * epochs  # the batch in progress may be lost with its learner
    for uid, sequences in taken.items():
        gaps = set(range(1, max(sequences) + 1)) - set(sequences)
        assert len(gaps) <= held, (uid, gaps)
    return replayed


def check_nothing_is_missing(run: directory.RunDirectory) -> None:
    """Checks that the applied samples of each worker have no gap: holds if the learner was never restarted."""
    names = replay(run.path).names
    for uid in {uid for uid, _ in names}:
        own = sorted(sequence for name, sequence in names if name == uid)
        assert own == list(range(1, len(own) + 1))


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
