"""Ctrl-C and SIGTERM: the first one asks for an orderly stop, the second one quits immediately."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The user asked the command to stop. Its text says how to resume."""


class Interrupt:
    """Inside the `with` block the first signal sets `asked`; the second one kills the process and all its descendants."""

    def __init__(self) -> None:
        self.asked = False  # not an Event: a handler that waits for a lock held by the interrupted code deadlocks

    def check(self) -> None:
        """Raises Interrupted once a stop has been requested. Call it where stopping loses nothing."""
        if self.asked:
            raise Interrupted("stopped; the results so far are kept, and the same command resumes")

    def __enter__(self) -> Self:
        import psutil  # noqa: F401  here, because the signal handler needs it

        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            for pid in descendants(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os._exit(128 + number)
        self.asked = True
        print(
            "\nStopping after the samples in flight. Press Ctrl-C again to quit immediately.",
            file=sys.stderr,
            flush=True,
        )


def descendants(pid: int) -> list[int]:
    """Process ids of all children of a process, their children, and so on."""
    import psutil

    return [process.pid for process in psutil.Process(pid).children(recursive=True)]
