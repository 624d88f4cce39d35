"""Faults of a run on a cluster of several raylets, one at a time, each with its repair."""

import os
import random
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from cluster.actors.ray_errors import unwrap
from helpers.cluster import Scene, add_node
from helpers.ray_environment import Cluster


class Fault(NamedTuple):
    """A fault that has just been injected."""

    kind: str
    repair: Callable[[], Any]
    seconds: float  # until the repair


def nothing() -> None:
    """The repair of a fault from which the system recovers by itself."""


class FaultInjector:
    """Injects faults into a run."""

    KINDS = ("worker_killed", "worker_frozen", "learner_killed", "fleet_killed", "node_lost", "disk_full")

    def __init__(self, scene: Scene, cluster: Cluster, seed: int):
        self._scene, self._cluster, self._random = scene, cluster, random.Random(seed)
        self._order: list[str] = []

    def inject(self) -> Fault:
        """Injects a fault. The kinds come in random order, each once per round. May raise RayActorError: call it again."""
        if not self._order:
            self._order = self._random.sample(self.KINDS, len(self.KINDS))
        kind = self._order[-1]
        repair = getattr(self, f"_{kind}")() or nothing
        self._order.pop()
        return Fault(kind, repair, self._random.uniform(3, 10))

    def _victim(self) -> int:
        return self._random.choice([pid for _, pid in sorted(self._scene.workers().items())])

    def _worker_killed(self) -> None:
        os.kill(self._victim(), signal.SIGKILL)

    def _worker_frozen(self) -> Callable[[], None]:
        victim = self._victim()
        os.kill(victim, signal.SIGSTOP)

        def thaw() -> None:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGCONT)

        return thaw

    def _learner_killed(self) -> None:
        os.kill(unwrap(self._scene.handles.learner.pid.remote), signal.SIGKILL)

    def _fleet_killed(self) -> None:
        os.kill(unwrap(self._scene.handles.fleet.pid.remote), signal.SIGKILL)

    def _node_lost(self) -> Callable[[], Any]:
        """Removes a node with all its processes; the repair adds a new one."""
        self._cluster.remove_node(self._random.choice(sorted(self._cluster.worker_nodes, key=str)), False)
        return lambda: add_node(self._cluster)

    def _disk_full(self) -> Callable[[], None]:
        """The kernel rejects whatever the learner writes to a file."""
        learner = unwrap(self._scene.handles.learner.pid.remote)
        soft, hard = resource.prlimit(learner, resource.RLIMIT_FSIZE)
        resource.prlimit(learner, resource.RLIMIT_FSIZE, (0, hard))
        return lambda: resource.prlimit(learner, resource.RLIMIT_FSIZE, (soft, hard))
