"""Processes on this machine that compute the jobs of figures, one core each: `cluster.jobs.job.Pool` without Ray."""

import json
import os
import shutil
import signal
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from cluster.jobs.job import Ended, Job, Json

TRAINING = "training"  # folder of the outer-trainings in progress


class Worker(NamedTuple):
    """A process, and our end of its pipe."""

    process: BaseProcess
    connection: Connection


class LocalPool:
    """Ends its processes on exit. A job that was in progress then begins again next time; its training is resumed."""

    def __init__(self, count: int, folder: Path):
        self._folder = folder
        self._free = [self._start() for _ in range(count)]
        self._busy: dict[Connection, tuple[Worker, Job]] = {}

    def _start(self) -> Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, str(self._folder)), daemon=True)
        process.start()
        theirs.close()
        return Worker(process, ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in (*self._free, *(worker for worker, _ in self._busy.values())):
            worker.process.terminate()
            worker.process.join()

    def free_slots(self) -> int:
        return len(self._free)

    def submit(self, job: Job) -> None:
        worker = self._free.pop()
        with suppress(OSError):  # it has died: `collect` reports that
            worker.connection.send_bytes(json.dumps(job.spec).encode())
        self._busy[worker.connection] = worker, job

    def collect(self) -> list[Ended]:
        ready = wait(list(self._busy), timeout=0.5)
        return [self._ended(connection) for connection in ready if isinstance(connection, Connection)]

    def _ended(self, connection: Connection) -> Ended:
        worker, job = self._busy.pop(connection)
        try:
            result = json.loads(connection.recv_bytes())
        except (EOFError, OSError):  # its traceback, if any, is on standard error
            worker.process.join()
            self._free.append(self._start())
            return Ended(job, None, f"its process exited with code {worker.process.exitcode}")
        self._free.append(worker)
        return Ended(job, result)


def serve(connection: Connection, folder: str) -> None:
    """Main function of a process: receives a job and sends its result, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent, which ends this process
    os.nice(5)
    from common import runtime

    runtime.prepare()
    while True:
        try:
            spec = json.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(json.dumps(perform(spec, Path(folder))).encode())


def perform(spec: Json, folder: Path) -> Json:
    """Returns the result of one job of a figure."""
    from cluster.launchers.in_process import train_for_figure
    from workers.figures import catalogue

    run = folder / TRAINING / Job.from_json(spec).name
    result = catalogue.perform(spec, partial(train_for_figure, folder=run))
    shutil.rmtree(run, ignore_errors=True)
    return result
