"""The pool of processes: jobs are computed, lost processes are replaced, and nothing is left behind."""

import json
from pathlib import Path

import pytest

from cluster.jobs import job
from cluster.jobs.job import Ended, Job, Json, Results
from cluster.launchers import process_pool
from cluster.launchers.process_pool import LocalPool
from workers.figures import catalogue, fig2

BROKEN = {"item": "broken", "figure": "fig2", "kind": "no such kind"}


@pytest.fixture
def specs() -> list[Json]:
    return [fig2.TOY.named().to_json()]


def compute(pool: LocalPool, spec: Json) -> Ended:
    assert pool.free_slots() == 1
    pool.submit(Job.from_json(spec))
    assert pool.free_slots() == 0
    while not (ended := pool.collect()):
        pass
    return ended[0]


@pytest.mark.heavy
def test_pool_computes_jobs_and_replaces_a_failed_process(tmp_path: Path, specs: list[Json]) -> None:
    with LocalPool(1, tmp_path) as pool:
        assert compute(pool, BROKEN).reason == "its process exited with code 1"
        ended = compute(pool, specs[0])
        workers = list(pool._free)
    assert ended.result == json.loads(json.dumps(process_pool.perform(specs[0], tmp_path)))
    assert not any(worker.process.is_alive() for worker in workers)


@pytest.mark.heavy
def test_pool_process_that_died_idle_costs_an_attempt_only(tmp_path: Path, specs: list[Json]) -> None:
    with LocalPool(1, tmp_path) as pool:
        pool._free[0].process.kill()
        pool._free[0].process.join()
        results = Results(tmp_path / "rows.jsonl")
        job.run([Job.from_json(specs[0])], results, pool, lambda done, total: None)
    assert [*results.by_name] == [specs[0]["item"]]


def test_perform_removes_the_folder_of_a_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def perform(spec: Json, train: object) -> Json:
        run = tmp_path / "training" / "one"
        run.mkdir(parents=True)
        return {"item": spec["item"], "existed": run.is_dir()}

    monkeypatch.setattr(catalogue, "perform", perform)
    assert process_pool.perform({"item": "one"}, tmp_path) == {"item": "one", "existed": True}
    assert not (tmp_path / "training" / "one").exists()
