"""A worker's road to the learner: one call, repeated with the same payload until it is answered.

The learner knows a sample by its name, so a repetition after a lost reply is applied once. A learner that is away is
waited for: it comes back from its checkpoint, and the worker keeps its trajectories meanwhile.
"""

import random
from collections.abc import Callable
from threading import Event

Call = Callable[[bytes | None, int, int], bytes]  # (payload or nothing, known epoch, known version) -> reply


class Unreachable(Exception):
    """The call may or may not have been executed."""


class Left(Exception):
    """The worker was told to leave while it waited for the learner."""


class Connection:
    """An exchange over a road that may break."""

    def __init__(
        self, call: Call, leaving: Event, repeat: bool = True, pause: float = 0.5, longest_pause: float = 15.0
    ):
        """`repeat`: whether the other side, when it comes back, knows which samples it has taken; else the sample whose
        answer was lost is given up, because it might be taken twice.
        """
        self._call, self._repeat = call, repeat
        self._leaving = leaving
        self._pause = pause
        self._longest_pause = longest_pause

    def __call__(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """The learner's reply, whenever it comes. Raises Left when the worker is to leave first."""
        pause = self._pause
        while True:
            try:
                return self._call(payload, epoch, version)
            except Unreachable:
                if self._leaving.wait(pause * random.uniform(0.5, 1.0)):  # spread: all workers lost it at once
                    raise Left from None
                if not self._repeat:
                    payload = None
                pause = min(2 * pause, self._longest_pause)
