"""The learner as a Ray actor: `cluster.actors.learner_service.LearnerService` behind an actor's methods."""

import os
from pathlib import Path
from typing import Any

import ray

from cluster.actors.base import actor_class, retried_by_ray
from cluster.actors.run_reader import RunReader
from cluster.actors.worker_program import add_user_folder
from cluster.monitoring.run_status import LearnerReport
from cluster.monitoring.targets import LEARNER
from cluster.runs.directory import RunDirectory
from common import runtime
from learner.status import LearnerStatus


class LearnerActor(RunReader):
    """While its run cannot be opened, every call raises the reason, and opening is retried now and then."""

    def __init__(self, run: str):
        """`run`: path of the run directory."""
        runtime.prepare(pin=False)
        add_user_folder()
        from cluster.actors.learner_service import LearnerService, RetriedOpening  # JAX

        self._run = directory = RunDirectory(Path(run))
        directory.start_log()
        with retried_by_ray():
            self._service = RetriedOpening(lambda: LearnerService(directory))

    @ray.method(concurrency_group="control")
    def ready(self) -> None:
        """Raises UserError when this learner cannot work."""
        self._service.get()

    @ray.method(concurrency_group="exchange")
    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """`learner.learner.Learner.exchange`."""
        return self._service.get().learner.exchange(payload, epoch, version)

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def report(self) -> LearnerReport:
        return self._service.get().report()

    @ray.method(concurrency_group="control")
    def drain(self) -> None:
        """Tells the workers, in its replies, to shut down."""
        if service := self._service.opened:
            service.learner.drain()

    @ray.method(concurrency_group="control")
    def persist(self) -> LearnerStatus | None:
        """Tries to make the newest version durable, and returns the status after it; None: the run was never opened."""
        if service := self._service.opened:
            service.learner.persist()
            return service.learner.status()
        return None

    @ray.method(concurrency_group="control")
    def close(self) -> None:
        """Makes the newest version durable."""
        if service := self._service.opened:
            service.close()


def start_learner(run: Path, **options: Any) -> Any:
    """Starts the learner of a run directory and returns its handle.

    Exchanges have one thread: each needs the learner's lock, so more threads would only pass it, and the GIL, around.
    """
    created = actor_class(LearnerActor, {"name": LEARNER, "max_restarts": -1, **options}, exchange=1, control=2)
    return created.remote(str(run))
