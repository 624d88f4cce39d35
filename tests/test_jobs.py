"""Jobs: every item once, whatever happens to those who compute them."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.jobs.job import ATTEMPTS, Done, InProcessPool, Results, run
from common.errors import UserError


def item(name: str) -> dict:
    return {"item": name}


def ignore(done: int, total: int) -> None:
    pass


class FlakyPool:
    """Loses some of its workers' items and answers in any order."""

    def __init__(self, seed: int, loss: float):
        self.random, self.loss = random.Random(seed), loss
        self.held: list[dict] = []
        self.losses: dict[str, int] = {}

    def room(self) -> int:
        return 3 - len(self.held)

    def submit(self, item: dict) -> None:
        self.held.append(item)

    def collect(self) -> list[Done]:
        self.random.shuffle(self.held)
        item = self.held.pop()
        lost = self.losses.get(item["item"], 0)
        if lost < ATTEMPTS - 1 and self.random.random() < self.loss:
            self.losses[item["item"]] = lost + 1
            return [Done(item, None, "killed")]
        return [Done(item, {"item": item["item"], "value": len(item["item"])})]


@given(st.integers(0, 30), st.integers(0, 1000), st.floats(0, 1))
def test_every_item_gets_one_row(tmp_path_factory, count: int, seed: int, loss: float) -> None:
    path = tmp_path_factory.mktemp("job") / "rows.jsonl"
    items = [item(f"i{k}") for k in range(count)]
    run(items, Results(path), FlakyPool(seed, loss), ignore)
    names = [json.loads(line)["item"] for line in path.read_text().splitlines()]
    assert sorted(names) == sorted(i["item"] for i in items)


def test_what_has_a_row_is_not_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    computed = []

    def perform(item: dict) -> dict:
        computed.append(item["item"])
        return {"item": item["item"]}

    run([item("a"), item("b")], Results(path), InProcessPool(perform), ignore)
    run([item("a"), item("b"), item("c")], Results(path), InProcessPool(perform), ignore)
    assert computed == ["a", "b", "c"]


def test_run_when_progress_raises_keeps_rows_and_resumes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    items = [item(f"i{k}") for k in range(5)]
    pool = InProcessPool(lambda item: {"item": item["item"]})

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyError

    with pytest.raises(KeyError):
        run(items, Results(path), pool, stop)
    assert len(path.read_text().splitlines()) == 2
    seen: list[tuple[int, int]] = []
    run(items, Results(path), pool, lambda *counts: seen.append(counts))
    assert seen[0] == (2, 5) and seen[-1] == (5, 5)


def test_an_item_that_fails_again_and_again_ends_the_job_with_the_reason(tmp_path: Path) -> None:
    class Deadly(FlakyPool):
        def collect(self) -> list[Done]:
            return [Done(self.held.pop(), None, "ValueError: no such optimizer")]

    with pytest.raises(UserError, match="a failed 3 times, the last time so: ValueError: no such optimizer"):
        run([item("a")], Results(tmp_path / "rows.jsonl"), Deadly(0, 0), ignore)


def test_results_torn_line_is_closed_and_recomputed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    complete = b'{"item": "a", "x": 1}\n'
    path.write_bytes(complete + b'{"item": "b"')
    results = Results(path)
    assert list(results.rows) == ["a"]
    results.add({"item": "c"})
    assert path.read_bytes() == complete + b'{"item": "b"\n{"item": "c"}\n'
    assert list(Results(path).rows) == ["a", "c"]


def test_the_first_row_of_a_name_counts(tmp_path: Path) -> None:
    results = Results(tmp_path / "rows.jsonl")
    results.add({"item": "a", "x": 1})
    results.add({"item": "a", "x": 2})
    assert Results(results.path).rows == {"a": {"item": "a", "x": 1}}
