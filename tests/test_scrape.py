"""Readings: what an endpoint of our own says, through HTTP, is what its metrics hold."""

import json
import socket
from pathlib import Path

import pytest
from helpers import run_files

from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.metrics import Endpoint, FleetMetrics, LearnerMetrics, exposition
from cluster.monitoring.scrape import Readings, parse, read
from cluster.monitoring.targets import FOLDER_VARIABLE, write_targets
from cluster.runs.directory import RunDirectory

STATUS = FleetStatus(target=4, starting=1, running=3, nodes={"a": 2, "b": 1})


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)


def test_an_endpoint_is_found_and_read(tmp_path: Path) -> None:
    fleet = FleetMetrics()
    fleet.observe_status(STATUS)
    endpoint = Endpoint(fleet.registry, "127.0.0.1", 0)
    try:
        write_targets(RunDirectory(tmp_path), "fleet", endpoint.address, endpoint.port)
        readings = read(RunDirectory(tmp_path), "fleet")
    finally:
        endpoint.close()
    assert readings.found
    assert readings.get("outertrain_workers_target") == 4
    assert readings.get("outertrain_workers", state="running") == 3
    assert readings.by("outertrain_node_workers", "node") == {"a": 2, "b": 1}
    assert readings.get("outertrain_workers", state="nonsense") is None


def test_every_sample_of_a_learner_is_parsed() -> None:
    metrics = LearnerMetrics()
    metrics.observe_update(run_files.history(1)[0], "train", 0.1)
    text = exposition(metrics.registry)
    values = parse(text)
    assert len(values) == sum(not line.startswith("#") for line in text.splitlines())
    key = ("outertrain_estimator_variance", frozenset({("estimator", "rp"), ("q", "0.5")}))
    assert values[key] == run_files.history(1)[0].var_rp.q50


def test_numbers_and_labels_of_all_kinds() -> None:
    text = '# HELP a b\na 1\nb{x="1",y="a b\\"c"} +Inf\nc{} 1e-3\nno sample at all\n'
    assert parse(text) == {
        ("a", frozenset()): 1.0,
        ("b", frozenset({("x", "1"), ("y", 'a b\\"c')})): float("inf"),
        ("c", frozenset()): 0.001,
    }


def test_sums_over_the_other_labels() -> None:
    readings = Readings(True, parse('n{a="x",b="1"} 2\nn{a="x",b="2"} 3\nn{a="y",b="1"} 4\nm{a="x"} 9\n'))
    assert readings.by("n", "a") == {"x": 5, "y": 4}


def test_an_endpoint_that_is_gone(tmp_path: Path) -> None:
    assert read(RunDirectory(tmp_path), "learner") == Readings(False, None)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        write_targets(RunDirectory(tmp_path), "learner", "127.0.0.1", unused.getsockname()[1])
        assert read(RunDirectory(tmp_path), "learner", timeout=1.0) == Readings(True, None)
    (tmp_path / "metrics-learner.json").write_text(json.dumps([{"targets": ["no address"]}]))
    assert read(RunDirectory(tmp_path), "learner") == Readings(True, None)
    assert Readings(True, None).by("n", "a") == {}
