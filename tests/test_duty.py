"""What a worker does with its core: samples first, items in their share, all of it in one thread."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest

from cluster.actors.exchange_client import Left
from cluster.actors.worker_loop import Duty


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Workplace:
    """Samples take 1 s of the pretended clock, items 3 s; after `samples` the learner wants no more."""

    def __init__(self, clock: Clock, samples: int, duty: Duty | None = None):
        self.clock, self.left, self.duty = clock, samples, duty
        self.log: list[str] = []
        self.threads: set[int] = set()

    def step(self) -> bool:
        self.log.append("sample")
        self.clock.now += 1
        self.threads.add(threading.get_ident())
        self.left -= 1
        if self.left == 0 and self.duty is not None:
            self.duty.leave()
        return self.left > 0

    def perform(self, item: dict[str, Any]) -> dict[str, Any]:
        self.log.append(item["item"])
        self.clock.now += 3
        self.threads.add(threading.get_ident())
        if item["item"] == "bad":
            raise ValueError("a bad item")
        return {"item": item["item"], "done": True}


def queued(duty: Duty, names: list[str], pool: ThreadPoolExecutor) -> list:
    """Orders the items one after the other, each from a thread of its own, which waits for its result."""
    futures = []
    for name in names:
        before = duty.waiting()
        futures.append(pool.submit(duty.perform, {"item": name}))
        while duty.waiting() == before:
            pass
    return futures


def test_items_take_their_share_of_the_time_and_no_more() -> None:
    clock = Clock()
    duty = Duty(share=0.25, clock=clock)
    place = Workplace(clock, 40, duty)
    with ThreadPoolExecutor(8) as pool:
        futures = queued(duty, [f"i{k}" for k in range(8)], pool)
        duty.run(place)
    # 40 s of samples earn 10 s for items: three of them, and one that was begun on the credit that was left
    assert [name for name in place.log if name != "sample"] == ["i0", "i1", "i2", "i3"]
    for future in futures[:4]:
        assert future.result()["done"]
    for future in futures[4:]:
        with pytest.raises(CancelledError):
            future.result()
    assert duty.samples == 40 and len(place.threads) == 1


def test_after_training_items_get_all_the_time() -> None:
    clock = Clock()
    duty = Duty(clock=clock)
    place = Workplace(clock, 1)
    with ThreadPoolExecutor(4) as pool:
        loop = pool.submit(duty.run, place)
        rows = [duty.perform({"item": f"i{k}"}) for k in range(3)]
        duty.leave()
        loop.result(timeout=10)
    assert [row["item"] for row in rows] == ["i0", "i1", "i2"]
    assert place.log == ["sample", "i0", "i1", "i2"]


def test_an_item_that_raises_tells_who_ordered_it_and_ends_the_worker() -> None:
    clock = Clock()
    duty = Duty(clock=clock)
    with ThreadPoolExecutor(4) as pool:
        loop = pool.submit(duty.run, Workplace(clock, 1))
        with pytest.raises(ValueError, match="a bad item"):
            duty.perform({"item": "bad"})
        with pytest.raises(ValueError, match="a bad item"):
            loop.result(timeout=10)


def test_a_worker_that_is_told_to_leave_while_it_waits_for_the_learner_leaves() -> None:
    duty = Duty()

    class Waiting(Workplace):
        def step(self) -> bool:
            duty.leave()
            raise Left

    duty.run(Waiting(Clock(), 1))
    assert duty.samples == 0


def test_a_worker_without_anything_to_do_ends() -> None:
    duty = Duty(linger=0.01)
    duty.run(Workplace(Clock(), 1))
    assert duty.samples == 1
