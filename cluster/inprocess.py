"""A run in one process, without Ray: the same learner, the same workers, taking turns. Deterministic.

Same seed, same theta, bit for bit, resumed or not: each checkpoint also holds every trajectory and whose turn is next.
A worker fetches the newest parameters before each sample, so nothing that it remembers of them matters.
"""

from typing import Self

from cluster.jobs import InProcessPool, Pool
from cluster.local import Status
from cluster.rundirectory import RunDirectory
from cluster.service import LearnerService, kept_beside
from cluster.workplace import ForJobs
from common.config import Config
from workers.worker import Worker

TURN = "turn"


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
        self._kept = kept_beside(run)
        self._turn = int(self._kept.get(TURN, b"0")) % config.workers.count
        self._workers: list[Worker] = []
        self._service = LearnerService(run, self._snapshot)
        exchange = self._service.learner.exchange
        workers = [Worker(config, f"w{k}", exchange) for k in range(config.workers.count)]
        for worker in workers:
            if worker.uid in self._kept:
                worker.restore(self._kept[worker.uid])
        self._workers = workers

    def _snapshot(self) -> dict[str, bytes]:
        """Called while a worker's exchange is under way: its sample is taken, the next worker's turn has come."""
        if not self._workers:
            return self._kept  # the learner's first checkpoint, before there are workers
        trajectories = {worker.uid: worker.snapshot() for worker in self._workers}
        return {TURN: str(self._turn).encode(), **trajectories}

    def __exit__(self, *_: object) -> None:
        self._service.close()

    def advance(self) -> bool:
        worker = self._workers[self._turn]
        self._turn = (self._turn + 1) % len(self._workers)
        return not (worker.fetch().stop or worker.step().stop)

    def status(self) -> Status:
        count = len(self._workers)
        return Status(self._service.status(), {"target": count, "running": count})
