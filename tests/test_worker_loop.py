"""The loop of a worker: samples first, jobs for a fraction of the time, all computed by one thread."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest

from cluster.actors.exchange_client import ShuttingDown
from cluster.actors.worker_loop import WorkerLoop


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeProgram:
    """Samples take 1 s of the fake clock, jobs 3 s; after `samples` the learner needs no more."""

    def __init__(self, clock: Clock, samples: int, loop: WorkerLoop | None = None):
        self.clock, self.left, self.loop = clock, samples, loop
        self.log: list[str] = []
        self.threads: set[int] = set()

    def step(self) -> bool:
        self.log.append("sample")
        self.clock.now += 1
        self.threads.add(threading.get_ident())
        self.left -= 1
        if self.left == 0 and self.loop is not None:
            self.loop.shut_down()
        return self.left > 0

    def perform(self, job: dict[str, Any]) -> dict[str, Any]:
        self.log.append(job["item"])
        self.clock.now += 3
        self.threads.add(threading.get_ident())
        if job["item"] == "bad":
            raise ValueError("a bad job")
        return {"item": job["item"], "done": True}


def submit_in_order(loop: WorkerLoop, names: list[str], threads: ThreadPoolExecutor) -> list:
    """Submits the jobs one after the other, each from its own thread, which waits for the result."""
    futures = []
    for name in names:
        before = loop.queued()
        futures.append(threads.submit(loop.perform, {"item": name}))
        while loop.queued() == before:
            pass
    return futures


def test_loop_during_training_jobs_take_their_fraction() -> None:
    clock = Clock()
    loop = WorkerLoop(fraction=0.25, clock=clock)
    program = FakeProgram(clock, 40, loop)
    with ThreadPoolExecutor(8) as threads:
        futures = submit_in_order(loop, [f"j{k}" for k in range(8)], threads)
        loop.run(program)
    # 40 s of samples earn 10 s for jobs: three of them, and one that began on the remaining credit
    assert [name for name in program.log if name != "sample"] == ["j0", "j1", "j2", "j3"]
    for future in futures[:4]:
        assert future.result()["done"]
    for future in futures[4:]:
        with pytest.raises(CancelledError):
            future.result()
    assert loop.samples == 40 and len(program.threads) == 1


def test_loop_after_training_jobs_take_all_the_time() -> None:
    clock = Clock()
    loop = WorkerLoop(clock=clock)
    program = FakeProgram(clock, 1)
    with ThreadPoolExecutor(4) as threads:
        running = threads.submit(loop.run, program)
        results = [loop.perform({"item": f"j{k}"}) for k in range(3)]
        loop.shut_down()
        running.result(timeout=10)
    assert [result["item"] for result in results] == ["j0", "j1", "j2"]
    assert program.log == ["sample", "j0", "j1", "j2"]


def test_loop_job_that_raises_fails_its_caller_and_the_worker() -> None:
    clock = Clock()
    loop = WorkerLoop(clock=clock)
    with ThreadPoolExecutor(4) as threads:
        running = threads.submit(loop.run, FakeProgram(clock, 1))
        with pytest.raises(ValueError, match="a bad job"):
            loop.perform({"item": "bad"})
        with pytest.raises(ValueError, match="a bad job"):
            running.result(timeout=10)


def test_loop_shut_down_while_the_learner_is_unavailable_ends() -> None:
    loop = WorkerLoop()

    class Waiting(FakeProgram):
        def step(self) -> bool:
            loop.shut_down()
            raise ShuttingDown

    loop.run(Waiting(Clock(), 1))
    assert loop.samples == 0


def test_loop_without_samples_and_jobs_ends() -> None:
    loop = WorkerLoop(idle_limit=0.01)
    loop.run(FakeProgram(Clock(), 1))
    assert loop.samples == 1
