"""Client for the learner's `exchange` call: retries the same payload with exponential back-off until a reply arrives.

The learner identifies a sample by worker and sequence number, so a retry after a lost reply is applied once. While the
learner is unavailable the worker waits, with its trajectories in memory; the learner restarts from its checkpoint.
"""

import random
from threading import Event

from common.exchange import Exchange


class Unavailable(Exception):
    """The peer did not reply. The call may or may not have been executed."""


class ShuttingDown(Exception):
    """The worker was asked to shut down while it waited for the learner."""


class ExchangeClient:
    """An `Exchange` that survives an unavailable peer."""

    def __init__(
        self, call: Exchange, stopping: Event, *, resend: bool = True, pause: float = 0.5, longest_pause: float = 15.0
    ):
        """Args:
        call: one attempt; raises Unavailable.
        stopping: set when the worker must shut down; interrupts a pause.
        resend: whether the peer recognises a sample that it has already received. Otherwise a sample whose reply was
            lost is dropped, because it might be applied twice.
        pause: seconds before the first retry, doubled by each further one up to `longest_pause`.
        """
        self._call, self._resend, self._stopping = call, resend, stopping
        self._pause, self._longest_pause = pause, longest_pause

    def __call__(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """Returns the packed reply. Raises ShuttingDown if `stopping` is set while the peer is unavailable."""
        pause = self._pause
        while True:
            try:
                return self._call(payload, epoch, version)
            except Unavailable:
                if self._stopping.wait(pause * random.uniform(0.5, 1.0)):  # jitter: all workers lost it at once
                    raise ShuttingDown from None
                if not self._resend:
                    payload = None
                pause = min(2 * pause, self._longest_pause)
