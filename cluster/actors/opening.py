"""Something that cannot always be opened: a run whose disk is full, say. Whoever asks is told, and it is tried again."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from common.errors import UserError

log = logging.getLogger(__name__)
RETRY_SECONDS = 15.0
T = TypeVar("T")


class Opening(Generic[T]):
    """Opens at once, and after a refusal again when somebody asks, at most every `RETRY_SECONDS`. For many threads."""

    def __init__(self, make: Callable[[], T], clock: Callable[[], float] = time.monotonic):
        """`make` raises UserError while it cannot be done."""
        self._make, self._clock = make, clock
        self._lock = threading.Lock()
        self._made: T | None = None
        self._refusal: UserError | None = None
        self._try()

    def made(self) -> T | None:
        """It, if it has been opened."""
        return self._made

    def get(self) -> T:
        """It. Raises the UserError of the last attempt."""
        with self._lock:
            if self._made is None and self._clock() - self._tried >= RETRY_SECONDS:
                self._try()
            if self._made is None:
                assert self._refusal is not None
                raise self._refusal
            return self._made

    def _try(self) -> None:
        self._tried = self._clock()
        try:
            self._made = self._make()
        except UserError as error:
            if str(error) != str(self._refusal):
                log.error("%s; tried again every %.0f s", error, RETRY_SECONDS)
            self._refusal = error
