"""Which version would survive now: writes are tried, timed, counted; a full disk does not stop training."""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from learner.observer import Observer

log = logging.getLogger(__name__)


class Durable(NamedTuple):
    """The newest version on disk."""

    version: int
    time: float  # when it was written, unix seconds
    failures: int = 0  # checkpoints not written since the start
    error: str = ""  # the reason of the last failure; empty once one succeeded


class Keeper:
    """Writes checkpoints. While the storage refuses, training goes on from memory: counted, shown, tried again."""

    def __init__(self, durable: Durable, observer: Observer, clock: Callable[[], float]) -> None:
        self.durable = durable
        self._observer, self._clock = observer, clock

    def keep(self, version: int, write: Callable[[], int]) -> None:
        """Makes `version` durable by `write`, which returns the bytes written or raises OSError."""
        began = time.perf_counter()
        try:
            size = write()
        except OSError as error:
            self.durable = self.durable._replace(failures=self.durable.failures + 1, error=str(error))
            self._observer.checkpoint_failed()
            log.error(
                "version %d is not on disk (%s), version %d is: make room or repair the storage; training goes on",
                version,
                error,
                self.durable.version,
            )
            return
        self.durable = Durable(version, self._clock(), self.durable.failures)
        self._observer.checkpoint_written(version, size, time.perf_counter() - began, self.durable.time)
