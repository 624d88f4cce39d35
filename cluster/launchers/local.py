"""Runs and jobs on this machine: our own Ray with a fleet and, for a run, a learner. All of it ends with the command."""

import time
from contextlib import ExitStack, suppress
from typing import Any, Self

from cluster.actors import ray_session
from cluster.actors.ray_errors import await_ready, unwrap
from cluster.actors.worker_program import JOBS, TRAINING
from cluster.jobs.job import Pool
from cluster.launchers.host import raise_if_superseded
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.run_status import LearnerReport, RunStatus
from cluster.monitoring.targets import FLEET, remove_targets
from cluster.runs.directory import RunDirectory
from common.config import Config
from learner.status import LearnerStatus

POLL_S = 0.5
ACTORS = 2  # learner and fleet


class LocalJobs:
    """`cluster.launchers.host.JobHost`: worker processes for jobs alone; another process may train the run meanwhile.

    Ray is imported on entry, after its settings have been applied.
    """

    def __init__(self, run: RunDirectory, config: Config, workers: int):
        self._run, self._config, self._workers = run, config, workers
        self._stack = ExitStack()
        self._fleet: Any = None

    def __enter__(self) -> Self:
        self._stack.enter_context(ray_session.local(self._workers + ACTORS, self._run.name, self._config))
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def _start(self) -> None:
        self._start_fleet(JOBS, announced=False)

    def _start_fleet(self, program: str, *, announced: bool) -> None:
        from cluster.actors.fleet_actor import FleetSpec, start_fleet

        self._fleet = start_fleet(FleetSpec(self._run.path, program, self._workers, announced=announced))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pool(self) -> Pool:
        from cluster.actors.ray_pool import RayPool

        return RayPool(self._fleet)


class LocalRun(LocalJobs):
    """`cluster.launchers.host.RunHost`: workers and a learner."""

    def __init__(self, run: RunDirectory, config: Config):
        super().__init__(run, config, config.workers.count)
        self._learner: Any = None
        self._status = RunStatus(LearnerStatus(), [], FleetStatus(config.workers.count))

    def _start(self) -> None:
        from cluster.actors.learner_actor import start_learner

        self._learner = start_learner(self._run.path)
        try:
            self._start_fleet(TRAINING, announced=True)
            await_ready(self._learner.ready.remote, "learner")
        except BaseException:
            remove_targets(self._run, FLEET)
            raise

    def __exit__(self, *_: object) -> None:
        remove_targets(self._run, FLEET)
        with self._stack:
            unwrap(self._learner.close.remote)

    def advance(self) -> bool:
        time.sleep(POLL_S)
        status = self.status()
        status.fleet.raise_if_all_abandoned()
        raise_if_superseded(status.learner)
        return not status.learner.finished

    def status(self) -> RunStatus:
        """The newest status; while an actor is being restarted, the last one."""
        from ray.exceptions import RayActorError

        with suppress(RayActorError):
            report: LearnerReport = unwrap(self._learner.report.remote)
            self._status = RunStatus(report.learner, report.records, unwrap(self._fleet.status.remote))
        return self._status
