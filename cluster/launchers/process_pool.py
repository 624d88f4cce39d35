"""Processes on this machine that compute the items of figures, one core each: `cluster.jobs.job.Pool` without Ray."""

import json
import os
import shutil
import signal
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from cluster.jobs.job import Done, Item, Row

TRAINING = "training"  # folder of the outer-trainings that are under way


class Hand(NamedTuple):
    """One process and the way to it."""

    process: BaseProcess
    connection: Connection


class LocalPool:
    """Ends its processes with itself; an item that was under way is begun again next time, its training gone on with."""

    def __init__(self, count: int, folder: Path):
        self._folder = folder
        self._free = [self._start() for _ in range(count)]
        self._at_work: dict[Connection, tuple[Hand, Item]] = {}

    def _start(self) -> Hand:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, str(self._folder)), daemon=True)
        process.start()
        theirs.close()
        return Hand(process, ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hand in (*self._free, *(hand for hand, _ in self._at_work.values())):
            hand.process.terminate()
            hand.process.join()

    def room(self) -> int:
        return len(self._free)

    def submit(self, item: Item) -> None:
        hand = self._free.pop()
        with suppress(OSError):  # it has died: `collect` will say so
            hand.connection.send_bytes(json.dumps(item).encode())
        self._at_work[hand.connection] = hand, item

    def collect(self) -> list[Done]:
        ready = wait(list(self._at_work), timeout=0.5)
        return [self._done(connection) for connection in ready if isinstance(connection, Connection)]

    def _done(self, connection: Connection) -> Done:
        hand, item = self._at_work.pop(connection)
        try:
            row = json.loads(connection.recv_bytes())
        except (EOFError, OSError):  # its traceback, if it had one, stands on standard error
            hand.process.join()
            self._free.append(self._start())
            return Done(item, None, f"its process ended with code {hand.process.exitcode}")
        self._free.append(hand)
        return Done(item, row)


def serve(connection: Connection, folder: str) -> None:
    """The process: an item in, its row out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    os.nice(5)
    from common import runtime

    runtime.prepare()
    while True:
        try:
            item = json.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(json.dumps(perform(item, Path(folder))).encode())


def perform(item: Item, folder: Path) -> Row:
    """The row of one item of a figure."""
    from cluster.launchers.apprentice import train
    from workers.figures import catalogue

    run = folder / TRAINING / item["item"]
    row = catalogue.perform(item, lambda config, keep: train(config, keep, run))
    shutil.rmtree(run, ignore_errors=True)
    return row
