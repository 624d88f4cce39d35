"""What a worker process does with its one core: samples for the learner, and items of jobs behind them.

Items (an unroll of an evaluation, say) come from other threads; the one that calls `run` does all computing. While
training goes on items get at most a share of the time, afterwards all of it.
"""

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event
from typing import Any, NamedTuple

from cluster.actors.exchange_client import Left
from cluster.actors.worker_program import Workplace

MOST_CREDIT = 10.0  # seconds of items that training may owe


class Order(NamedTuple):
    """One item to be computed and the place for its result."""

    item: dict[str, Any]
    result: Future


class Duty:
    """A loop over samples and items."""

    def __init__(self, share: float = 0.25, linger: float = 600.0, clock: Callable[[], float] = time.monotonic):
        """Args:
        share: the part of the time that items may take from training.
        linger: seconds without an item, after training, at which the loop ends of its own accord.
        """
        self.leaving = Event()
        self.samples = 0
        self.training = True
        self._share = share
        self._linger = linger
        self._clock = clock
        self._orders: queue.Queue[Order | None] = queue.Queue()

    def perform(self, item: dict[str, Any]) -> dict[str, Any]:
        """Called from another thread: waits until the loop has computed the item."""
        result: Future = Future()
        self._orders.put(Order(item, result))
        return result.result()

    def waiting(self) -> int:
        """Items that nobody has begun."""
        return self._orders.qsize()

    def leave(self) -> None:
        """Called from another thread: the loop ends after what it is computing."""
        self.leaving.set()
        self._orders.put(None)  # wakes a loop that waits

    def run(self, workplace: Workplace) -> None:
        """Returns when told to leave, or when there is nothing more to do. An item that raises ends the worker, which the fleet replaces and reports."""
        try:
            credit = 0.0
            while not self.leaving.is_set():
                if self.training:
                    before = self._clock()
                    self._sample(workplace)
                    credit = min(credit + self._share * (self._clock() - before), MOST_CREDIT)
                if (not self.training or credit > 0) and not self.leaving.is_set():
                    credit -= self._serve(workplace, wait=not self.training)
        finally:
            self._return_waiting()

    def _return_waiting(self) -> None:
        """Those who ordered what was not begun are told that it is cancelled."""
        while self.waiting():
            order = self._orders.get_nowait()
            if order is not None:
                order.result.cancel()

    def _sample(self, workplace: Workplace) -> None:
        try:
            self.training = workplace.step()
        except Left:
            return
        self.samples += 1

    def _serve(self, workplace: Workplace, wait: bool) -> float:
        """Computes one item, if there is one, and returns the seconds it took."""
        try:
            order = self._orders.get(block=wait, timeout=self._linger)
        except queue.Empty:
            if wait:
                self.leaving.set()
            return 0.0
        if order is None:
            return 0.0
        before = self._clock()
        try:
            order.result.set_result(workplace.perform(order.item))
        except Exception as error:
            order.result.set_exception(error)
            raise
        return self._clock() - before
