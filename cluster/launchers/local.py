"""Runs and jobs on this machine: a Ray of our own, a fleet, perhaps a learner; all of it ends with the command."""

import time
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, Protocol, Self

from cluster.actors import ray_session
from cluster.actors.ray_errors import await_ready, raise_if_hopeless, raise_if_superseded, unwrap
from cluster.actors.worker_program import FOR_JOBS, FOR_RUNS
from cluster.jobs.job import Pool
from cluster.monitoring.targets import forget_targets
from cluster.runs.directory import RunDirectory
from common.config import Config

POLL_SECONDS = 0.5
ACTORS = 2  # learner and fleet


class Status(NamedTuple):
    """What a run says of itself; both parts are JSON-able."""

    learner: dict[str, Any]  # of `LearnerService.status`
    fleet: dict[str, Any]  # of `Fleet.status`


class Host(Protocol):
    """Where a run takes place."""

    def advance(self) -> bool:
        """Lets the run go on for a moment; False when it has had its updates."""
        ...

    def status(self) -> Status: ...
    def pool(self) -> Pool: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class LocalFleet:
    """Workers in processes of their own, for jobs alone; the run may be trained by others meanwhile."""

    def __init__(
        self, run: RunDirectory, config: Config, workers: int, program: str = FOR_JOBS, announce: bool = False
    ):
        self._run, self._config, self._workers, self._program = run, config, workers, program
        self._announce = announce
        self._stack = ExitStack()
        self._fleet: Any = None

    def __enter__(self) -> Self:
        self._stack.enter_context(ray_session.local(self._workers + ACTORS, self._run.name, self._config))
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def _start(self) -> None:
        from cluster.actors.base import fleet_actor

        self._fleet = fleet_actor(self._run.path, self._program, self._workers, {}, self._announce)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pool(self) -> Pool:
        from cluster.actors.ray_pool import RayPool

        return RayPool(self._fleet)


class LocalRun(LocalFleet):
    """Workers and a learner."""

    def __init__(self, run: RunDirectory, config: Config, program: str = FOR_RUNS):
        super().__init__(run, config, config.workers.count, program, announce=True)
        self._learner: Any = None
        self._status = Status({"version": 0, "finished": False, "records": []}, {"target": config.workers.count})

    def _start(self) -> None:
        from cluster.actors.base import learner_actor

        self._learner = learner_actor(self._run.path)
        super()._start()
        await_ready(self._learner.ready.remote, "learner")

    def __exit__(self, *_: object) -> None:
        forget_targets(self._run.path, self._run.name, "fleet")
        with self._stack:
            unwrap(self._learner.close.remote)

    def advance(self) -> bool:
        time.sleep(POLL_SECONDS)
        status = self.status()
        raise_if_hopeless(status.fleet)
        raise_if_superseded(status.learner)
        return not status.learner["finished"]

    def status(self) -> Status:
        from ray.exceptions import RayActorError

        with suppress(RayActorError):  # it is being restarted: what was known stays
            self._status = Status(unwrap(self._learner.status.remote), unwrap(self._fleet.status.remote))
        return self._status
