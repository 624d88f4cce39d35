"""Compilations of a running worker, and the throughput of two workers on two cores."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import jax
import numpy as np

from common.config import Config, CurriculumConfig
from common.optimizer import initial_theta
from workers.bench.figure import Measured
from workers.worker import Worker

WINDOWS = 8
SECONDS = 2.0  # of one measurement of throughput
COMPILED = "/jax/core/compile/backend_compile_duration"


def compilations(rounds: int, config: Config | None = None) -> Measured:
    """XLA compilations in `WINDOWS` windows with jitter after the first one, new tasks included."""
    ramp = CurriculumConfig(start=10, end=60, updates=WINDOWS, jitter=0.2)
    worker = idle_worker(replace(config or Config(), curriculum=ramp))
    worker.sample()
    windows: list[int] = []
    with counted(COMPILED) as events:
        for version in range(1, WINDOWS + 1):
            worker.version = version
            windows += worker.sample().windows
    return Measured([float(len(events))], {"windows": windows})


def idle_worker(config: Config) -> Worker:
    """A worker that has parameters and is connected to no learner."""
    worker = Worker(config, "bench", lambda payload, epoch, version: b"")
    worker.theta, worker.epoch, worker.version = initial_theta(config), 0, 0
    return worker


@contextmanager
def counted(name: str) -> Iterator[list[float]]:
    """Durations of all JAX events of this name inside the context."""
    events: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == name:
            events.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def two_workers(rounds: int, seconds: float = SECONDS) -> Measured:
    """Inner steps per second of two workers, on one core each, over those of one (the mean of both alone)."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        return Measured([float("nan")], {"reason": "only one core is available"})
    workers = [PinnedWorker(core) for core in cores]
    try:
        values = []
        for _ in range(rounds):
            alone = [throughput([worker], seconds) for worker in workers]
            values.append(throughput(workers, seconds) / float(np.mean(alone)))
        return Measured(values, {"load": os.getloadavg()[0], "steps_per_second_alone": float(np.mean(alone))})
    finally:
        for worker in workers:
            worker.close()


class PinnedWorker:
    """A worker in its own process, on one core, that computes samples for a given time."""

    def __init__(self, core: int):
        command = [sys.executable, "-m", "workers.bench.throughput_worker", str(core)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.result()

    def start(self, seconds: float) -> None:
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)

    def result(self) -> float:
        """Inner steps per second, once the time is over."""
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def throughput(workers: Sequence[PinnedWorker], seconds: float) -> float:
    """Inner steps per second of all workers together."""
    for worker in workers:
        worker.start(seconds)
    return sum(worker.result() for worker in workers)
