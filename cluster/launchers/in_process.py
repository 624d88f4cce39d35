"""A run in one process, without Ray: the same learner, the same workers, taking turns (`cluster.launchers.circle`)."""

from contextlib import ExitStack
from typing import Self

from cluster.actors.learner_service import LearnerService
from cluster.actors.ray_errors import raise_if_superseded
from cluster.actors.worker_program import ForJobs
from cluster.jobs.job import InProcessPool, Pool
from cluster.launchers.circle import Circle
from cluster.launchers.local import Status
from cluster.runs.directory import RunDirectory
from common.config import Config


class JobsInProcess:
    """Jobs alone."""

    def __init__(self, config: Config):
        self._config = config
        self._workplace = ForJobs(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def pool(self) -> Pool:
        return InProcessPool(self._workplace.perform)


class InProcess(JobsInProcess):
    """`workers.count` workers in a circle around one learner."""

    def __init__(self, run: RunDirectory, config: Config):
        super().__init__(config)
        self._circle = Circle(config)
        with ExitStack() as stack:
            self._log = run.start_log()
            stack.callback(self._log.close)
            self._service = LearnerService(run, self._circle.snapshot)
            stack.callback(self._service.close)
            self._circle.join(self._service.learner, self._service.beside)
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def advance(self) -> bool:
        if not self._circle.stopped:
            self._circle.advance()
        if self._circle.stopped:
            raise_if_superseded(self._service.learner.status())
        return not self._circle.stopped

    def status(self) -> Status:
        count = self._config.workers.count
        return Status(self._service.status(), {"target": count, "running": count})
