"""The contents of the learner's process, with or without Ray: the learner of one run and its metrics endpoint."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from cluster.monitoring import targets
from cluster.monitoring.endpoint import Endpoint
from cluster.monitoring.metrics import LearnerMetrics
from cluster.monitoring.progress import RECENT
from cluster.monitoring.run_status import LearnerReport
from cluster.runs.directory import RunDirectory
from cluster.runs.learned import first_theta
from cluster.tracking.tracker import Tracker
from common.config import digest
from common.errors import UserError
from common.optimizer import make_family
from common.task import open_tasks
from common.update_record import UpdateRecord
from learner import failpoints, lineage
from learner.history import read_newest
from learner.hooks import Hooks
from learner.recovery import open_learner

log = logging.getLogger(__name__)
RETRY_S = 15.0
T = TypeVar("T")


class RecentMetrics(LearnerMetrics):
    """Metrics that also keep the newest records of the history, which `report` returns."""

    def __init__(self, before: list[UpdateRecord]):
        super().__init__()
        self.recent = deque(before, maxlen=5 * RECENT)
        self.trackers: list[Tracker] = []

    def observe_update(self, record: UpdateRecord, objective: str, seconds: float) -> None:
        super().observe_update(record, objective, seconds)
        self.recent.append(record)
        for tracker in self.trackers:
            tracker.put(record)


class LearnerService:
    """A run's learner, from one start to its end or crash."""

    def __init__(self, run: RunDirectory, auxiliary: Callable[[], dict[str, bytes]] = dict):
        """Args:
        auxiliary: state to keep in each checkpoint (`learner.hooks.Hooks`).

        Raises:
          UserError: the configuration, the data, the run directory or the port cannot be used.
        """
        self._run, self._config = run, run.config()
        config = self._config
        tasks = open_tasks(config)  # an impossible one is rejected here, not by each worker
        family = make_family(config.optimizer)
        self._metrics = RecentMetrics(read_newest(run.path, RECENT))
        self._endpoint = Endpoint(self._metrics.registry, config.metrics.address, config.metrics.port)
        restarted = (
            targets.read_address(run, targets.LEARNER) is not None
        )  # after a crash Prometheus must see it as down
        try:
            # Before opening the run, which takes an epoch.
            targets.write_targets(run, targets.LEARNER, self._endpoint.address, self._endpoint.port)
            hooks = Hooks(self._metrics, auxiliary=auxiliary, failpoint=failpoints.from_environment())
            identity = digest(config, tasks.fingerprint)
            self.learner, self.auxiliary = open_learner(
                run.path, config, identity, first_theta(run, config), family.segments, hooks
            )
        except BaseException:
            self._endpoint.close()
            if not restarted:
                targets.remove_targets(run, targets.LEARNER)
            raise
        self._metrics.start(config, lineage.identity(run.epochs))
        self._metrics.watch_disk(run.path)
        status = self.learner.status()
        before = [r for r in self._metrics.recent if r.version <= status.version]  # later ones may not be on disk
        durable_time = time.time() - status.durable_seconds_ago
        self._metrics.resume(before[-1] if before else None, status.durable_version, durable_time)
        self._metrics.trackers += [Tracker(run, name, status.version) for name in config.tracking.sinks]

    def report(self) -> LearnerReport:
        url = f"http://{self._endpoint.address}:{self._endpoint.port}/metrics"
        return LearnerReport(self.learner.status(), list(self._metrics.recent), url)

    def close(self) -> None:
        """Makes the newest version durable, if the disk permits, and closes the endpoint."""
        self.learner.drain()
        try:
            self.learner.persist()
        finally:
            targets.remove_targets(self._run, targets.LEARNER)
            self._endpoint.close()
            for tracker in self._metrics.trackers:
                tracker.close()


class RetriedOpening(Generic[T]):
    """Something that may be impossible to open for a while, a run on a full disk for example. Thread-safe.

    It is opened at once; after a failure it is retried by `get`, at most every `RETRY_S` seconds.
    """

    def __init__(self, open_now: Callable[[], T], clock: Callable[[], float] = time.monotonic):
        """`open_now` raises UserError while opening is impossible; other exceptions are raised here."""
        self._open_now, self._clock = open_now, clock
        self._lock = threading.Lock()
        self._opened: T | None = None
        self._error: UserError | None = None
        self._try()

    @property
    def opened(self) -> T | None:
        """The opened object, or None."""
        return self._opened

    def get(self) -> T:
        """Returns the opened object. Raises the UserError of the last attempt."""
        with self._lock:
            if self._opened is None and self._clock() - self._tried >= RETRY_S:
                self._try()
            if self._opened is None:
                assert self._error is not None
                raise self._error
            return self._opened

    def _try(self) -> None:
        self._tried = self._clock()
        try:
            self._opened = self._open_now()
        except UserError as error:
            if str(error) != str(self._error):
                log.error("%s; retried every %.0f s", error, RETRY_S)
            self._error = error
