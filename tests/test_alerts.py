"""Alerts: each speaks in its situation and is silent otherwise."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from helpers import run_files

from cluster.monitoring.alerts import alerts, firing
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.snapshot import FleetSnapshot, LearnerSnapshot, Snapshot

HISTORY = run_files.history(20)
NOW = HISTORY[-1].time + 10
LEARNER = LearnerSnapshot(
    announced=True,
    responding=True,
    version=20,
    target_updates=200,
    last_update_time=HISTORY[-1].time,
    loss_clamp=10,
    checkpoint_version=20,
    disk_free_bytes=5e10,
    verdicts={"accepted": 95, "stale": 5, "non_finite": 0},
)
FLEET = FleetSnapshot(True, True, FleetStatus(target=10, running=9))
HEALTHY = Snapshot(HISTORY, LEARNER, FLEET, NOW)


def with_learner(**fields: object) -> Snapshot:
    return HEALTHY._replace(learner=LEARNER._replace(**fields))


def with_fleet(status: FleetStatus) -> Snapshot:
    return HEALTHY._replace(fleet=FLEET._replace(status=status))


def test_alerts_healthy_run_has_none() -> None:
    assert alerts(HEALTHY) == []


def test_alerts_run_that_has_ended_has_none() -> None:
    assert alerts(HEALTHY._replace(now=NOW + 1e6)) != []
    assert alerts(Snapshot(HISTORY, LearnerSnapshot(), FleetSnapshot(), NOW + 1e6)) == []


@pytest.mark.parametrize(
    ("snapshot", "sentence"),
    [
        (with_learner(checkpoint_version=18), "version 20 is not on disk; the last durable version is 18"),
        (with_learner(disk_free_bytes=5e8), "only 500 MB of disk space are free"),
        (with_learner(verdicts={"accepted": 95, "stale": 50}), "34% of the samples are stale"),
        (with_learner(verdicts={"accepted": 95, "non_finite": 5}), "5% of the samples are non-finite"),
        (with_learner(loss_clamp=1.0), "near the clamp of 1"),
        (with_fleet(FleetStatus(target=10, running=8)), "8 of 10 workers are running"),
        (with_fleet(FleetStatus(target=10, running=9, abandoned=1)), "1 workers failed too often"),
    ],
)
def test_alerts_one_fault_gives_its_sentence(snapshot: Snapshot, sentence: str) -> None:
    [alert] = alerts(snapshot)
    assert sentence in alert


@pytest.mark.parametrize(
    "fields",
    [
        {"checkpoint_version": 19},
        {"checkpoint_version": 0},
        {"disk_free_bytes": 2e9},
        {"verdicts": {"accepted": 95, "stale": 20}},
        {"loss_clamp": 4.0},
    ],
)
def test_alerts_just_below_a_threshold_are_silent(fields: dict) -> None:
    assert alerts(with_learner(**fields)) == []


def test_alerts_stall_is_relative_to_the_pace_of_the_run() -> None:
    assert alerts(HEALTHY._replace(now=NOW + 500)) == []
    assert alerts(HEALTHY._replace(now=NOW + 700)) == ["no outer update for 710 s"]
    slow = [record._replace(time=1000.0 * record.version) for record in HISTORY]  # an update in 1,000 s
    stalled = with_learner(last_update_time=20_000.0)._replace(history=slow)
    assert alerts(stalled._replace(now=24_000.0)) == []
    assert alerts(stalled._replace(now=26_000.0)) == ["no outer update for 6000 s"]
    done = with_learner(last_update_time=20_000.0, version=200, checkpoint_version=200)
    assert alerts(done._replace(history=slow, now=1e6)) == []


def test_alerts_stall_is_relative_to_the_pace_since_the_resume() -> None:
    """A pause of a day would allow six hours of silence."""
    resumed = [r._replace(epoch=2, version=20 + r.version, time=r.time + 86_400) for r in HISTORY]
    last = resumed[-1].time
    stalled = with_learner(epoch=2, version=40, checkpoint_version=40, last_update_time=last)
    assert alerts(stalled._replace(history=HISTORY + resumed, now=last + 700)) == ["no outer update for 700 s"]


def test_alerts_announced_process_that_does_not_respond() -> None:
    silent = Snapshot(HISTORY, LearnerSnapshot(announced=True), FleetSnapshot(announced=True), NOW)
    assert [a.split(" is not")[0] for a in alerts(silent)] == ["the learner", "the fleet manager"]


@pytest.fixture
def prometheus() -> Iterator[str]:
    """A server that answers as Prometheus does, with two series of one alert; it checks what it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = "run%3D%22night%22" in self.path and self.path.startswith("/api/v1/query?query=ALERTS")
            found = [{"metric": {"alertname": "OutertrainStalled", "i": str(i)}} for i in range(2 * asked)]
            body = json.dumps({"data": {"result": found}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_firing_names_each_alert_once(prometheus: str) -> None:
    assert firing(prometheus, "night") == ["OutertrainStalled"]
    assert firing(prometheus, "another") == []


def test_firing_without_prometheus_is_none() -> None:
    assert firing("http://127.0.0.1:1", "night") is None
