"""The main loop of a worker process: computes samples for the learner and, with lower priority, jobs.

A job (an inner training of an evaluation, for example) is submitted from another thread; the thread that calls `run`
does all the computing. During training jobs get at most a fraction of the time, afterwards all of it.
"""

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event
from typing import NamedTuple

from cluster.actors.exchange_client import ShuttingDown
from cluster.actors.worker_program import WorkerProgram
from cluster.jobs.job import Json

MAX_CREDIT_S = 10.0  # seconds of jobs that training may owe at most


class Submitted(NamedTuple):
    """A job in the queue, and the future of its result."""

    job: Json
    result: Future


class WorkerLoop:
    """Alternates between samples and jobs until it is asked to shut down or has nothing left to do."""

    def __init__(self, fraction: float = 0.25, idle_limit: float = 600.0, clock: Callable[[], float] = time.monotonic):
        """Args:
        fraction: of the training time, granted to jobs.
        idle_limit: seconds without a job, after training, until the loop ends by itself.
        """
        self.stopping = Event()
        self.samples = 0
        self.training = True
        self._fraction = fraction
        self._idle_limit = idle_limit
        self._clock = clock
        self._jobs: queue.Queue[Submitted | None] = queue.Queue()

    def perform(self, job: Json) -> Json:
        """Queues a job and blocks until its result. Called from other threads.

        Raises:
          CancelledError: the loop ended before the job began.
          Exception: whatever the job raised.
        """
        result: Future = Future()
        self._jobs.put(Submitted(job, result))
        return result.result()

    def queued(self) -> int:
        """Number of jobs that have not begun."""
        return self._jobs.qsize()

    def shut_down(self) -> None:
        """Ends the loop after the sample or job in progress. Called from other threads."""
        self.stopping.set()
        self._jobs.put(None)  # wakes a loop that waits for a job

    def run(self, program: WorkerProgram) -> None:
        """Runs until `shut_down`, or until training is over and no job has come for `idle_limit` seconds.

        A job that raises ends the worker: the fleet replaces it and reports the traceback.
        """
        try:
            credit = 0.0
            while not self.stopping.is_set():
                if self.training:
                    before = self._clock()
                    self._sample(program)
                    credit = min(credit + self._fraction * (self._clock() - before), MAX_CREDIT_S)
                if (not self.training or credit > 0) and not self.stopping.is_set():
                    credit -= self._run_job(program, wait=not self.training)
        finally:
            self._cancel_queued()

    def _cancel_queued(self) -> None:
        while self.queued():
            submitted = self._jobs.get_nowait()
            if submitted is not None:
                submitted.result.cancel()

    def _sample(self, program: WorkerProgram) -> None:
        try:
            self.training = program.step()
        except ShuttingDown:
            return
        self.samples += 1

    def _run_job(self, program: WorkerProgram, *, wait: bool) -> float:
        """Computes one job, if there is one, and returns the seconds it took."""
        try:
            submitted = self._jobs.get(block=wait, timeout=self._idle_limit)
        except queue.Empty:
            if wait:
                self.stopping.set()
            return 0.0
        if submitted is None:
            return 0.0
        before = self._clock()
        try:
            submitted.result.set_result(program.perform(submitted.job))
        except Exception as error:
            submitted.result.set_exception(error)
            raise
        return self._clock() - before
