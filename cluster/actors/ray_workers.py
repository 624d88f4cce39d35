"""The fleet's workers as Ray actors: implements `cluster.actors.fleet.Processes`."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.actors.fleet import Ended, Started
from common.errors import UserError


class WorkerProcess(NamedTuple):
    """One worker actor and its pending calls."""

    actor: Any
    node: Any  # reference to the node's address and whether it is pinned; None once it has arrived
    run: Any  # reference to the one long call: when it completes, for whatever reason, the worker is gone


class RayWorkers:
    """Starts, observes and ends worker actors. They are owned by this process and end with it."""

    def __init__(self, start: Callable[[str], Any]):
        """`start` creates the worker actor of a uid and returns its handle."""
        self._start = start
        self._workers: dict[str, WorkerProcess] = {}

    def launch(self, uid: str) -> None:
        actor = self._start(uid)
        self._workers[uid] = WorkerProcess(actor, actor.node.remote(), actor.run.remote())

    def request_shutdown(self, uid: str) -> None:
        self._workers[uid].actor.shut_down.remote()

    def kill(self, uid: str) -> None:
        ray.kill(self._workers[uid].actor)

    def handles(self, uids: Iterable[str]) -> dict[str, Any]:
        return {uid: self._workers[uid].actor for uid in uids}

    def pending(self) -> list[Any]:
        """References whose completion is an event."""
        return list(self._references())

    def wait(self, references: list[Any], seconds: float) -> None:
        """Returns when one of them has completed, or after so many seconds. Safe concurrently with the other methods."""
        if references:
            ray.wait(references, timeout=seconds)
        else:
            time.sleep(seconds)

    def events(self) -> list[Started | Ended]:
        pending = self._references()
        if not pending:
            return []
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [event for reference in ready if (event := self._event(pending[reference], reference)) is not None]

    def _references(self) -> dict[Any, str]:
        return {
            ref: uid for uid, worker in self._workers.items() for ref in (worker.node, worker.run) if ref is not None
        }

    def _event(self, uid: str, reference: Any) -> Started | Ended | None:
        worker = self._workers.get(uid)
        if worker is None:
            return None  # its end was another event of this call
        try:
            value = ray.get(reference)
        except RayTaskError as error:
            return self._end(uid, str(error), fatal=isinstance(error.cause, UserError))
        except RayError as error:  # it died, was killed for memory, or its node could not set it up
            return self._end(uid, str(error))
        if reference == worker.run:
            return self._end(uid, None)
        self._workers[uid] = worker._replace(node=None)
        return Started(uid, *value)

    def _end(self, uid: str, reason: str | None, *, fatal: bool = False) -> Ended:
        ray.kill(self._workers.pop(uid).actor)
        return Ended(uid, reason, fatal)
