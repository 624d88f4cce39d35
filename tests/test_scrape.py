"""Scrapes: what an endpoint of our own says, through HTTP, is what its metrics hold."""

import json
import socket
from io import BytesIO
from pathlib import Path

import pytest
from helpers import run_files
from helpers.exposition import exposition

from cluster.monitoring.endpoint import Endpoint
from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.metrics import LearnerMetrics
from cluster.monitoring.scrape import DIRECT, Scrape, parse, scrape
from cluster.monitoring.targets import FOLDER_VARIABLE, write_targets
from cluster.runs.directory import RunDirectory

STATUS = FleetStatus(target=4, starting=1, running=3, nodes={"a": 2, "b": 1})


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)


def test_scrape_announced_endpoint_is_read(tmp_path: Path) -> None:
    fleet = FleetMetrics()
    fleet.observe_status(STATUS)
    endpoint = Endpoint(fleet.registry, "127.0.0.1", 0)
    try:
        write_targets(RunDirectory(tmp_path), "fleet", endpoint.address, endpoint.port)
        found = scrape(RunDirectory(tmp_path), "fleet")
    finally:
        endpoint.close()
    assert found.announced
    assert found.get("outertrain_workers_target") == 4
    assert found.get("outertrain_workers", state="running") == 3
    assert found.by("outertrain_node_workers", "node") == {"a": 2, "b": 1}
    assert found.get("outertrain_workers", state="nonsense") is None


def test_parse_learner_metrics_loses_no_sample() -> None:
    metrics = LearnerMetrics()
    metrics.observe_update(run_files.history(1)[0], "train", 0.1)
    text = exposition(metrics.registry)
    values = parse(text)
    assert len(values) == sum(not line.startswith("#") for line in text.splitlines())
    key = ("outertrain_estimator_variance", frozenset({("estimator", "rp"), ("q", "0.5")}))
    assert values[key] == run_files.history(1)[0].var_rp.q50


def test_parse_reads_numbers_and_labels_of_all_kinds() -> None:
    text = '# HELP a b\na 1\nb{x="1",y="a b\\"c"} +Inf\nc{} 1e-3\n'
    assert parse(text) == {
        ("a", frozenset()): 1.0,
        ("b", frozenset({("x", "1"), ("y", 'a b"c')})): float("inf"),
        ("c", frozenset()): 0.001,
    }


def test_scrape_of_a_foreign_endpoint_is_no_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_targets(RunDirectory(tmp_path), "learner", "127.0.0.1", 1)
    monkeypatch.setattr(DIRECT, "open", lambda *_, **__: BytesIO(b"<html>no metrics here</html>"))
    assert scrape(RunDirectory(tmp_path), "learner") == Scrape(True, None)


def test_by_label_sums_over_the_others() -> None:
    found = Scrape(True, parse('n{a="x",b="1"} 2\nn{a="x",b="2"} 3\nn{a="y",b="1"} 4\nm{a="x"} 9\n'))
    assert found.by("n", "a") == {"x": 5, "y": 4}


def test_scrape_of_an_endpoint_that_is_gone(tmp_path: Path) -> None:
    assert scrape(RunDirectory(tmp_path), "learner") == Scrape(False, None)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        write_targets(RunDirectory(tmp_path), "learner", "127.0.0.1", unused.getsockname()[1])
        assert scrape(RunDirectory(tmp_path), "learner", timeout=1.0) == Scrape(True, None)
    (tmp_path / "metrics-learner.json").write_text(json.dumps([{"targets": ["no address"]}]))
    assert scrape(RunDirectory(tmp_path), "learner") == Scrape(True, None)
    assert Scrape(True, None).by("n", "a") == {}
