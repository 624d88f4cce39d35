"""The workers of a fleet as a pool for jobs: implements `cluster.jobs.job.Pool` over Ray."""

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from cluster.jobs.job import Ended, Job
from cluster.monitoring.fleet_status import FleetStatus
from common.errors import UserError, last_line

REFRESH_S = 2.0  # between two queries for the running workers
FLEET_TIMEOUT_S = 120.0  # a fleet that has not replied for this long will not come back
PER_WORKER = 2  # jobs submitted to one worker, so that it never waits for the next one


class RayPool:
    """Submits jobs to the running workers, the least loaded first; the fleet replaces workers that are lost.

    `free_slots` raises UserError when the fleet has abandoned all workers, has a target of 0, or is gone.
    """

    def __init__(self, fleet: Any):
        self._fleet = fleet
        self._workers: Mapping[str, Any] = {}  # handles by uid
        self._refreshed, self._replied = -REFRESH_S, time.monotonic()
        self._submitted: dict[Any, tuple[str, Job]] = {}  # by reference of the result: worker uid, job

    def free_slots(self) -> int:
        self._refresh()
        return PER_WORKER * len(self._workers) - sum(uid in self._workers for uid, _ in self._submitted.values())

    def submit(self, job: Job) -> None:
        load = Counter(uid for uid, _ in self._submitted.values())
        uid = min(self._workers, key=lambda uid: load[uid])
        self._submitted[self._workers[uid].perform.remote(job.spec)] = (uid, job)

    def collect(self) -> list[Ended]:
        if not self._submitted:
            time.sleep(0.2)  # no worker is running
            return []
        ready, _ = ray.wait(list(self._submitted), num_returns=1, timeout=0.5)
        return [self._ended(reference) for reference in ready]

    def _ended(self, reference: Any) -> Ended:
        uid, job = self._submitted.pop(reference)
        try:
            return Ended(job, ray.get(reference))
        except RayError as error:
            self._workers = {name: handle for name, handle in self._workers.items() if name != uid}
            cancelled = isinstance(getattr(error, "cause", None), CancelledError)
            return Ended(job, None, "" if cancelled else last_line(self._reason() or str(error)))

    def _reason(self) -> str | None:
        """The last traceback of a worker, which the fleet has."""
        try:
            return self._status().last_failure
        except RayActorError:
            return None

    def _status(self) -> FleetStatus:
        status: FleetStatus = ray.get(self._fleet.status.remote())
        return status

    def _raise_if_empty_for_good(self) -> None:
        """Raises UserError when no worker will start."""
        status = self._status()
        status.raise_if_all_abandoned()
        if status.target == 0:
            raise UserError("the run has no workers: outertrain scale RUN N, then repeat the command")

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._refreshed < REFRESH_S and self._workers:
            return
        try:
            self._workers = ray.get(self._fleet.workers.remote())
            if not self._workers:
                self._raise_if_empty_for_good()
            self._replied = now
        except RayActorError:  # the fleet is being restarted; its workers ended with it
            self._workers = {}
            if now - self._replied > FLEET_TIMEOUT_S:
                raise UserError("the fleet is gone: the run was stopped, or its cluster ended") from None
        self._refreshed = now
