"""Where a run stands, told from its directory and from the endpoints announced there."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import run_files

from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.metrics import Endpoint, FleetMetrics, LearnerMetrics
from cluster.monitoring.status import state_of, text
from cluster.monitoring.targets import write_targets
from cluster.runs.directory import RunDirectory
from common.config import Config, OuterConfig

FLEET = FleetStatus(target=4, starting=1, running=3, restarts=2, nodes={"10.0.0.1": 3})


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


def test_a_run_at_rest(run: RunDirectory) -> None:
    state = state_of(run)
    assert (state["state"], state["version"], state["target"], state["epoch"]) == ("stopped", 30, 50, 1)
    assert state["workers"] == 0 and state["verdicts"] == {} and state["checkpoint_age"] is None
    assert text(state).splitlines()[0] == "a: stopped, update 30 of 50, epoch 1"
    run.write_config(replace(Config(), outer=OuterConfig(updates=30)))
    assert state_of(run)["state"] == "finished"


def test_a_run_that_runs_tells_what_prometheus_reads(run: RunDirectory, running: None) -> None:
    state = state_of(run)
    assert (state["state"], state["version"]) == ("running", 31)
    assert state["workers"] == 3 and state["workers_wanted"] == 4 and state["nodes"] == {"10.0.0.1": 3}
    assert state["verdicts"]["stale"] == 1 == sum(state["verdicts"].values()) and state["checkpoint_version"] == 31
    run.save_failure("Traceback\nValueError: no data here")
    told = text(state_of(run))
    assert "last failure of a worker: ValueError: no data here" in told
    for part in ("4 asked for, 1 starting, 3 running", "10.0.0.1: 3", "1 stale", "checkpoint: version 31"):
        assert part in told
