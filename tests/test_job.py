"""Jobs: every job is done once, whatever happens to the workers that compute them."""

import errno
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.jobs.job import ATTEMPTS, Ended, InProcessPool, Job, JobQueue, Json, Results, run
from common.errors import UserError


def jobs(names: Iterable[str]) -> list[Job]:
    return [Job.from_json({"item": name}) for name in names]


def ignore(done: int, total: int) -> None:
    pass


class FlakyPool:
    """Loses some of its workers' jobs, and returns the others in any order."""

    def __init__(self, seed: int, loss: float):
        self.random, self.loss = random.Random(seed), loss
        self.submitted: list[Job] = []
        self.losses: dict[str, int] = {}

    def free_slots(self) -> int:
        return 3 - len(self.submitted)

    def submit(self, job: Job) -> None:
        self.submitted.append(job)

    def collect(self) -> list[Ended]:
        self.random.shuffle(self.submitted)
        job = self.submitted.pop()
        lost = self.losses.get(job.name, 0)
        if lost < ATTEMPTS - 1 and self.random.random() < self.loss:
            self.losses[job.name] = lost + 1
            return [Ended(job, None, "killed")]
        return [Ended(job, {"item": job.name, "value": len(job.name)})]


@given(st.integers(0, 30), st.integers(0, 1000), st.floats(0, 1))
def test_run_lossy_pool_gives_each_job_one_result(tmp_path_factory, count: int, seed: int, loss: float) -> None:
    path = tmp_path_factory.mktemp("job") / "results.jsonl"
    names = [f"i{k}" for k in range(count)]
    run(jobs(names), Results(path), FlakyPool(seed, loss), ignore)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["item"] for line in lines) == sorted(names)


def test_run_job_with_a_result_is_not_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    computed = []

    def perform(spec: Json) -> Json:
        computed.append(spec["item"])
        return {"item": spec["item"]}

    run(jobs("ab"), Results(path), InProcessPool(perform), ignore)
    run(jobs("abc"), Results(path), InProcessPool(perform), ignore)
    assert computed == ["a", "b", "c"]


def test_run_interrupted_by_progress_resumes(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stop

    path = tmp_path / "results.jsonl"
    pool = InProcessPool(lambda spec: {"item": spec["item"]})
    with pytest.raises(Stop):
        run(jobs("abcde"), Results(path), pool, stop)
    assert len(path.read_text().splitlines()) == 2
    seen = []
    run(jobs("abcde"), Results(path), pool, lambda *counts: seen.append(counts))
    assert seen[0] == (2, 5) and seen[-1] == (5, 5)


def test_run_without_jobs_shows_no_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []
    run([], Results(tmp_path / "results.jsonl"), FlakyPool(0, 0), lambda *counts: seen.append(counts))
    assert seen == []


def test_run_stores_what_an_earlier_queue_left_in_the_pool(tmp_path: Path) -> None:
    pool, results = FlakyPool(0, 0.5), Results(tmp_path / "results.jsonl")
    pool.submit(jobs("x")[0])
    run(jobs("abc"), results, pool, ignore)
    assert set("abc") <= set(results.by_name) <= set("abcx")


def test_results_that_could_not_be_stored_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results(tmp_path / "results.jsonl")
    queue = JobQueue(jobs("ab"), results, InProcessPool(lambda spec: {"item": spec["item"]}))
    with monkeypatch.context() as full:

        def add(result: Json) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(results, "add", add)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                queue.step()
    while not queue.finished:
        queue.step()
    assert set(results.by_name) == {"a", "b"}


def test_results_that_do_not_count_are_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"item": "a"}\n{"item": "b", "new": 1}\n')
    results = Results(path, lambda line: "new" in line)
    run(jobs("ab"), results, InProcessPool(lambda spec: {"item": spec["item"], "new": 2}), ignore)
    assert {name: line["new"] for name, line in results.by_name.items()} == {"a": 2, "b": 1}


def test_run_job_that_fails_repeatedly_raises_its_reason(tmp_path: Path) -> None:
    class Deadly(FlakyPool):
        def collect(self) -> list[Ended]:
            return [Ended(self.submitted.pop(), None, "ValueError: no such optimizer")]

    with pytest.raises(UserError, match="a failed 3 times; the last error: ValueError: no such optimizer"):
        run(jobs("a"), Results(tmp_path / "results.jsonl"), Deadly(0, 0), ignore)


def test_run_job_of_a_stopped_worker_costs_no_attempt(tmp_path: Path) -> None:
    class Stopped(FlakyPool):
        def collect(self) -> list[Ended]:
            job = self.submitted.pop()
            self.losses[job.name] = self.losses.get(job.name, 0) + 1
            return [Ended(job, {"item": job.name} if self.losses[job.name] > 2 * ATTEMPTS else None)]

    results = Results(tmp_path / "results.jsonl")
    run(jobs("ab"), results, Stopped(0, 0), ignore)
    assert set(results.by_name) == {"a", "b"}


def test_results_torn_line_is_closed_and_recomputed(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    complete = b'{"item": "a", "x": 1}\n'
    path.write_bytes(complete + b'{"item": "b"')
    results = Results(path)
    assert list(results.by_name) == ["a"]
    results.add({"item": "c"})
    assert path.read_bytes() == complete + b'{"item": "b"\n{"item": "c"}\n'
    assert list(Results(path).by_name) == ["a", "c"]


def test_results_second_of_a_name_is_ignored(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add({"item": "a", "x": 1})
    results.add({"item": "a", "x": 2})
    assert Results(results.path).by_name == {"a": {"item": "a", "x": 1}}


def test_results_of_jobs_are_in_their_order(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    for name in "abc":
        results.add({"item": name})
    assert [line["item"] for line in results.of(jobs("ca"))] == ["c", "a"]
