"""A tracker in a thread of its own, behind a bounded queue: whatever it does, no outer update waits for it.

A tracker that is not installed, or that fails, is reported to the log of the run in one sentence, once for each reason, and
tried again after `RETRY_S` seconds; outer updates that it missed are counted. history.jsonl has them all.
"""

import importlib
import importlib.util
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from cluster.runs.directory import RunDirectory
from cluster.tracking.sink import Sink, TrackedRun, scalars
from common import files
from common.config import Config
from common.update_record import UpdateRecord

log = logging.getLogger(__name__)
QUEUE = 1000  # outer updates that wait for a slow tracker, at most
RETRY_S = 60.0
CLOSE_S = 20.0  # that the end of a run waits for its trackers
Open = Callable[[TrackedRun], Sink]


def opener(name: str) -> Open:
    """The function that opens a run of a tracker. Raises ImportError where its library is not installed."""
    found: Open = importlib.import_module(f"cluster.tracking.{name}_sink").open_sink
    return found


def missing(config: Config) -> str:
    """A sentence on the trackers of a configuration that are not installed on this machine; "" if all are."""
    names = [name for name in config.tracking.sinks if importlib.util.find_spec(name) is None]
    if not names:
        return ""
    return f"not installed, so nothing is tracked there: {', '.join(names)}; install them with {INSTALL}"


INSTALL = "pip install 'outertrain[tracking]'"


class Tracker:
    """Copies the outer updates of a run to one tracker."""

    def __init__(self, run: RunDirectory, name: str, version: int, open_sink: Callable[[str], Open] = opener):
        """`version`: outer updates that were made before."""
        self._run, self._name, self._version, self._opener = run, name, version, open_sink
        self._config = run.config()
        self._queue: queue.Queue[UpdateRecord | None] = queue.Queue(QUEUE)
        self._sink: Sink | None = None
        self._retry, self._stopping, self.lost = 0.0, False, 0
        self._problem = ""  # the sentence of the last failure, until the tracker works again
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, record: UpdateRecord) -> None:
        """Takes a record; never blocks, never raises."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.lost += 1

    def close(self, seconds: float = CLOSE_S) -> None:
        """Waits for the records in the queue, but not longer than some seconds."""
        self._stopping = True
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            log.warning("the tracker %s is too slow: it was left behind", self._name)
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("the tracker %s did not end within %g s: its last updates may be missing", self._name, seconds)
        elif self.lost:
            log.warning("the tracker %s misses %d outer updates; history.jsonl has them", self._name, self.lost)

    def _work(self) -> None:
        self._attempt(lambda sink: None)  # opens it, so that a mistake is reported at once
        while (record := self._queue.get()) is not None:
            if self._attempt(partial(_log, record)):
                self._version = record.version
            else:
                self.lost += 1
        if self._sink is not None:
            self._attempt(lambda sink: sink.close())

    def _attempt(self, action: Callable[[Sink], None]) -> bool:
        """Whether the action was done. Any failure of a tracker ends here, as a sentence."""
        if self._sink is None and time.monotonic() < self._retry:
            return False
        try:
            if self._sink is None:
                self._sink = opened(self._run, self._config, self._name, self._version, self._opener)
            action(self._sink)
        except Exception as error:  # noqa: BLE001 - libraries of trackers raise anything
            self._fail(failure(self._name, error))
            return False
        if self._problem:
            log.warning("the tracker %s works again; it has missed %d outer updates", self._name, self.lost)
            self._problem = ""
        return True

    def _fail(self, problem: str) -> None:
        """Leaves the sink: a new one is opened later. Minutes without a tracker are one sentence, not one a minute."""
        sink, self._sink = self._sink, None
        if sink is not None:
            with suppress(Exception):  # it has just failed: its files and connections are let go if possible
                sink.close()
        self._retry = time.monotonic() + RETRY_S
        if problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem


def _log(record: UpdateRecord, sink: Sink) -> None:
    sink.log(record.version, record.time, scalars(record))


def opened(run: RunDirectory, config: Config, name: str, version: int, open_sink: Callable[[str], Open]) -> Sink:
    """A run of a tracker: the one that this run has had before, or a new one whose identity is kept."""
    folder = run.path / "tracking" / name
    folder.mkdir(parents=True, exist_ok=True)
    file = run.path / "tracking" / f"{name}.id"
    identity = file.read_text().strip() if file.is_file() else None
    sink = open_sink(name)(TrackedRun(run.name, folder, config, version, identity))
    if identity is None:
        files.replace(file, sink.identity + "\n")
    return sink


def failure(name: str, error: Exception) -> str:
    """The sentence for a tracker that failed."""
    if isinstance(error, ImportError):
        return f"the tracker {name} is not installed ({error}): {INSTALL}; training continues without it"
    reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return f"the tracker {name} failed ({reason:.300}): training continues without it, and it is tried again"


def store(run: RunDirectory, paths: Sequence[Path], open_sink: Callable[[str], Open] = opener) -> list[str]:
    """Adds files to the trackers of a run, at its end; returns a sentence for each that failed."""
    config, problems = run.config(), []
    for name in config.tracking.sinks:
        done: list[str] = []

        def add(name: str = name, done: list[str] = done) -> None:
            try:
                sink = opened(run, config, name, config.outer.updates, open_sink)
                sink.store(paths)
                sink.close()
                done.append("")
            except Exception as error:  # noqa: BLE001 - as above
                done.append(failure(name, error))

        thread = threading.Thread(target=add, daemon=True)
        thread.start()
        thread.join(3 * CLOSE_S)
        problems += [text for text in done or [f"the tracker {name} took too long to store files"] if text]
    return problems
