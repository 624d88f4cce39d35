"""The status of a run, from its directory and from the endpoints announced there."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import run_files

from cluster.cli.main import main
from cluster.monitoring.endpoint import Endpoint
from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.metrics import LearnerMetrics
from cluster.monitoring.status import status_of, text
from cluster.monitoring.targets import write_targets
from cluster.runs.directory import RunDirectory
from common import jsonlines
from common.config import Config, OuterConfig
from common.errors import UserError

FLEET = FleetStatus(target=4, starting=1, running=3, restarts=2, nodes={"10.0.0.1": 3}, pinned={"10.0.0.1": 2})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    config = replace(Config(), outer=OuterConfig(updates=50))
    return RunDirectory(run_files.write_run(tmp_path / "a", run_files.history(30), [], config))


@pytest.fixture
def running(run: RunDirectory) -> Iterator[None]:
    """The endpoints of a learner and of a fleet, which the run has announced."""
    learner, fleet = LearnerMetrics(), FleetMetrics()
    learner.set_position(1, 31)
    learner.observe_verdict("stale", 10, None, 3)
    learner.checkpoint_written(31, 1000, 0.1, 0.0)
    fleet.observe_status(FLEET)
    endpoints = [Endpoint(metrics.registry, "127.0.0.1", 0) for metrics in (learner, fleet)]
    for role, endpoint in zip(("learner", "fleet"), endpoints):
        write_targets(run, role, endpoint.address, endpoint.port)
    yield
    for endpoint in endpoints:
        endpoint.close()


def test_status_of_a_stopped_and_of_a_finished_run(run: RunDirectory) -> None:
    status = status_of(run)
    assert (status.state, status.progress.version, status.progress.target, status.epoch) == ("stopped", 30, 50, 1)
    assert status.progress.workers == 0 and status.verdicts == {} and status.checkpoint_age is None
    assert text(status).splitlines()[0] == "a: stopped, update 30 of 50, epoch 1"
    run.write_config(replace(Config(), outer=OuterConfig(updates=30)))
    assert status_of(run).state == "finished"


def test_status_of_a_running_run_has_the_scraped_numbers(run: RunDirectory, running: None) -> None:
    status = status_of(run)
    assert (status.state, status.progress.version) == ("running", 31)
    assert status.progress.workers == 3 and status.progress.workers_wanted == 4
    assert status.verdicts["stale"] == 1 == sum(status.verdicts.values()) and status.checkpoint_version == 31
    run.save_failure("Traceback\nValueError: no data here")
    shown = text(status_of(run))
    assert "last worker failure: ValueError: no data here" in shown
    for part in (
        "4 requested, 1 starting, 3 running",
        "10.0.0.1: 3, 2 pinned to a core each",
        "1 stale",
        "checkpoint: version 31",
    ):
        assert part in shown


def test_status_json_has_the_keys_that_scripts_read(run: RunDirectory, running: None) -> None:
    found = json.loads(json.dumps(status_of(run).to_json()))
    assert found.keys() == {
        *("run", "path", "state", "version", "target", "loss", "weight_rp", "staleness", "samples_per_second"),
        *("steps_per_second", "workers", "workers_wanted", "seconds_left", "epoch", "verdicts", "fleet", "nodes"),
        *("last_failure", "checkpoint_version", "checkpoint_age", "checkpoint_failures", "best", "reason", "pinned"),
    }
    assert found["fleet"] == {"target": 4, "starting": 1, "running": 3, "leaving": 0, "given_up": 0}
    assert found["nodes"] == {"10.0.0.1": 3} and found["pinned"] == {"10.0.0.1": 2}


def test_status_of_a_long_run_parses_the_end_of_its_history(run: RunDirectory, parsed: list) -> None:
    """Of 10,000 updates less than 400 are parsed."""
    line = json.dumps(run_files.history(1)[0].to_json())
    lines = (line.replace('"version": 1', f'"version": {version}') + "\n" for version in range(1, 10_001))
    (run.path / "history.jsonl").write_text("".join(lines))
    assert status_of(run).progress.version == 10_000
    assert 0 < len(parsed) < 400


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list:
    """The lines of JSON that are parsed."""
    seen: list = []
    parse = json.loads
    monkeypatch.setattr(jsonlines.json, "loads", lambda text: seen.append(text) or parse(text))
    return seen


def silent(run: RunDirectory, role: str = "learner") -> None:
    """A target file whose endpoint is gone."""
    endpoint = Endpoint(LearnerMetrics().registry, "127.0.0.1", 0)
    write_targets(run, role, endpoint.address, endpoint.port)
    endpoint.close()


def test_status_of_a_silent_learner_is_unknown(run: RunDirectory) -> None:
    silent(run)
    status = status_of(run)
    assert status.state == "unknown" and "does not respond: it is being started or restarted" in (status.reason or "")
    assert "whether it runs is not known" in text(status)
    run.write_config(replace(Config(), outer=OuterConfig(updates=30)))
    assert status_of(run).state == "finished"  # all updates are done, whatever the target file says


def test_status_of_a_run_on_another_host_names_it(run: RunDirectory) -> None:
    silent(run)
    record = run.epochs / "e0001.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"host": "node-17"}))
    assert "was started on node-17" in text(status_of(run))


@pytest.mark.parametrize(("version", "late"), [(30, 60.0), (7, 0.0)])
def test_status_of_a_stale_target_file_ignores_another_run(run: RunDirectory, version: int, late: float) -> None:
    """Another run's learner has got the port: its last update was at another time, or its version is lower."""
    learner, record = LearnerMetrics(), run_files.history(30)[-1]
    learner.observe_update(record._replace(version=version, time=record.time + late), "train", 0.1)
    endpoint = Endpoint(learner.registry, "127.0.0.1", 0)
    write_targets(run, "learner", endpoint.address, endpoint.port)
    try:
        status = status_of(run)
    finally:
        endpoint.close()
    assert status.state == "unknown" and "another run responds" in (status.reason or "")
    assert status.progress.version == 30 and status.verdicts == {}


def test_status_of_its_own_learner_is_running(run: RunDirectory) -> None:
    learner = LearnerMetrics()
    learner.observe_update(run_files.history(30)[-1], "train", 0.1)
    endpoint = Endpoint(learner.registry, "127.0.0.1", 0)
    write_targets(run, "learner", endpoint.address, endpoint.port)
    try:
        status = status_of(run)
    finally:
        endpoint.close()
    assert status.state == "running" and status.progress.workers is None
    assert "workers: not known, the fleet manager does not respond" in text(status)


def test_status_of_a_stopped_run_has_no_rates(run: RunDirectory) -> None:
    progress = status_of(run).progress
    assert (progress.samples_per_second, progress.steps_per_second, progress.seconds_left) == (None, None, None)


def test_status_of_an_unreadable_history_says_so(run: RunDirectory) -> None:
    run.history.unlink()
    run.history.mkdir()
    with pytest.raises(UserError, match="history of the run 'a' cannot be read"):
        status_of(run)


def test_list_shows_the_others_beside_an_unreadable_run(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(run.path.parent))
    other = run_files.write_run(run.path.parent / "b", run_files.history(3), [], Config())
    (other / "config.toml").write_text("[task")
    assert main(["list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["a", "stopped"] and second.split()[:2] == ["b", "unknown"]
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in found] == ["stopped", "unknown"] and "config.toml" in found[1]["reason"]
