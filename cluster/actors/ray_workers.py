"""The fleet's workers as Ray actors: `cluster.actors.fleet.Processes` over Ray."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.actors.fleet import Ended, Started
from common.errors import UserError


class Hand(NamedTuple):
    """One worker process."""

    actor: Any
    node: Any  # reference of the answer that says where it is; None once it has come
    run: Any  # reference of its one long call: when that ends, however, the worker is gone


class Crew:
    """Starts, watches and ends worker actors. Ending the process that holds a crew ends its workers."""

    def __init__(self, make: Callable[[str], Any]):
        """`make` starts the worker of a uid and returns its handle."""
        self._make = make
        self._hands: dict[str, Hand] = {}

    def launch(self, uid: str) -> None:
        actor = self._make(uid)
        self._hands[uid] = Hand(actor, actor.node.remote(), actor.run.remote())

    def ask_to_leave(self, uid: str) -> None:
        self._hands[uid].actor.leave.remote()

    def kill(self, uid: str) -> None:
        ray.kill(self._hands[uid].actor)

    def handles(self, uids: Iterable[str]) -> dict[str, Any]:
        return {uid: self._hands[uid].actor for uid in uids}

    def awaited(self) -> list[Any]:
        """References whose coming is an event."""
        return list(self._references())

    def wait(self, references: list[Any], seconds: float) -> None:
        """Until one of them has come, or the time is over. Safe beside the other calls."""
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
        return {ref: uid for uid, hand in self._hands.items() for ref in (hand.node, hand.run) if ref is not None}

    def _event(self, uid: str, reference: Any) -> Started | Ended | None:
        hand = self._hands.get(uid)
        if hand is None:
            return None  # it has ended in this very round
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            return self._end(uid, str(error), hopeless=isinstance(error.cause, UserError))
        except RayError as error:  # it died, was killed for memory, or its node could not set it up
            return self._end(uid, str(error), hopeless=False)
        if reference == hand.run:
            return self._end(uid, None, hopeless=False)
        self._hands[uid] = hand._replace(node=None)
        return Started(uid, answer)

    def _end(self, uid: str, reason: str | None, hopeless: bool) -> Ended:
        hand = self._hands.pop(uid)
        ray.kill(hand.actor)
        return Ended(uid, reason, hopeless)
