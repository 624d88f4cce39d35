"""Ctrl-C: once asks for a clean end, twice ends at once."""

import os
import signal
import sys
from threading import Event
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While it is entered, the first signal sets `asked`; the second ends the process and what it has started."""

    def __init__(self) -> None:
        self.asked = Event()

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked.is_set():
            os._exit(128 + number)  # a local Ray shares the fate of the process that started it
        self.asked.set()
        print("\nending after the samples at hand; once more: at once", file=sys.stderr, flush=True)
