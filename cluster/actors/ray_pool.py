"""The workers of a fleet as a pool for jobs: `cluster.jobs.job.Pool` over Ray."""

import time
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from cluster.actors.ray_errors import raise_if_hopeless
from cluster.jobs.job import Done, Item
from common.errors import UserError, last_line

REFRESH_SECONDS = 2.0  # between two looks at which workers there are
AWAY_SECONDS = 120.0  # after which a fleet that does not answer will not come back
AHEAD = 2  # items at one worker, so that it never waits for the next


class RayPool:
    """Hands items to whichever workers run; the fleet replaces those that are lost.

    `room` raises UserError when the fleet has given up every worker, has none to start, or is gone.
    """

    def __init__(self, fleet: Any):
        self._fleet = fleet
        self._workers: dict[str, Any] = {}
        self._refreshed, self._answered = -REFRESH_SECONDS, time.monotonic()
        self._at_work: dict[Any, tuple[str, Item]] = {}

    def room(self) -> int:
        self._refresh()
        return AHEAD * len(self._workers) - sum(uid in self._workers for uid, _ in self._at_work.values())

    def submit(self, item: Item) -> None:
        load = Counter(uid for uid, _ in self._at_work.values())
        uid = min(self._workers, key=lambda uid: load[uid])
        self._at_work[self._workers[uid].perform.remote(item)] = (uid, item)

    def collect(self) -> list[Done]:
        if not self._at_work:
            time.sleep(0.2)  # no worker runs now
            return []
        ready, _ = ray.wait(list(self._at_work), num_returns=1, timeout=0.5)
        return [self._done(reference) for reference in ready]

    def _done(self, reference: Any) -> Done:
        uid, item = self._at_work.pop(reference)
        try:
            return Done(item, ray.get(reference))
        except RayError as error:
            self._workers.pop(uid, None)
            left = isinstance(getattr(error, "cause", None), CancelledError)
            return Done(item, None, "" if left else last_line(self._reason() or str(error)))

    def _reason(self) -> str | None:
        """Why a worker ended last: the fleet has its traceback."""
        try:
            return ray.get(self._fleet.status.remote())["last_failure"]
        except RayActorError:
            return None

    def _check(self, fleet: dict[str, Any]) -> None:
        """Raises UserError when no worker will come."""
        raise_if_hopeless(fleet)
        if fleet["target"] == 0:
            raise UserError("the run has no workers: outertrain scale RUN N, and give the command again")

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._refreshed < REFRESH_SECONDS and self._workers:
            return
        try:
            self._workers = ray.get(self._fleet.workers.remote())
            if not self._workers:
                self._check(ray.get(self._fleet.status.remote()))
            self._answered = now
        except RayActorError:  # it is being restarted, and its workers have ended with it
            self._workers = {}
            if now - self._answered > AWAY_SECONDS:
                raise UserError("the fleet is gone: the run was stopped, or its cluster ended") from None
        self._refreshed = now
