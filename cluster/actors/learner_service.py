"""What the learner's process holds, with or without Ray: the learner of one run and its metrics endpoint."""

from collections import deque
from collections.abc import Callable
from typing import Any

from cluster.monitoring import targets
from cluster.monitoring.metrics import Endpoint, LearnerMetrics
from cluster.monitoring.progress import RECENT
from cluster.runs.directory import RunDirectory
from common.config import digest
from common.data.dataset import open_dataset
from common.optimizer import initial_theta, make_family
from common.task import IMAGE_FAMILIES, make_task
from common.update_record import UpdateRecord
from learner import failpoints
from learner.history import read_newest
from learner.learner import Surroundings
from learner.recovery import open_learner


class Recording(LearnerMetrics):
    """Metrics that also keep the newest lines of the history, which `status` shows."""

    def __init__(self, before: list[UpdateRecord]):
        super().__init__()
        self.recent = deque(before, maxlen=5 * RECENT)

    def observe_update(self, record: UpdateRecord, objective: str, seconds: float) -> None:
        super().observe_update(record, objective, seconds)
        self.recent.append(record)


class LearnerService:
    """One life of a run's learner."""

    def __init__(self, run: RunDirectory, beside: Callable[[], dict[str, bytes]] = dict):
        """Raises UserError when the configuration, the data, the run directory or the port cannot be used."""
        self._run, self._config = run, run.config()
        config = self._config
        dataset = open_dataset(config.dataset) if config.task.family in IMAGE_FAMILIES else None
        make_task(config, dataset)  # a task that cannot be made is refused here, not by each worker
        family = make_family(config.optimizer)
        self._metrics = Recording(read_newest(run.path, RECENT))
        self._endpoint = Endpoint(self._metrics.registry, config.metrics.address, config.metrics.port)
        announced = targets.read_address(run.path) is not None  # by a life before: Prometheus is to miss it
        try:
            self._targets = targets.write_targets(  # first: a learner that opens its run has begun an epoch
                run.path, run.name, "learner", self._endpoint.address, self._endpoint.port
            )
            around = Surroundings(self._metrics, beside=beside, reached=failpoints.from_environment())
            identity = digest(config, dataset.fingerprint if dataset else "")
            self.learner, self.beside = open_learner(
                run.path, config, identity, initial_theta(config), family.segments, around
            )
        except BaseException:
            self._endpoint.close()
            if not announced:
                targets.forget_targets(run.path, run.name, "learner")
            raise
        self._metrics.start(config)
        self._metrics.watch_disk(run.path)

    def status(self) -> dict[str, Any]:
        """The learner's own words, the newest lines of the history, and where the metrics are."""
        status = self.learner.status()
        return {
            **status,
            "finished": status["version"] >= status["updates"],
            "records": list(self._metrics.recent),
            "metrics": f"http://{self._endpoint.address}:{self._endpoint.port}/metrics",
        }

    def close(self) -> None:
        """Makes the present state durable, if the disk has become free again, and ends the endpoint."""
        self.learner.drain()
        try:
            self.learner.persist()
        finally:
            targets.remove_targets(self._targets)
            self._endpoint.close()
