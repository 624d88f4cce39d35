"""Alarms: each speaks in its situation and is silent otherwise."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from helpers import run_files

from cluster.monitoring.alerts import Moment, alarms, firing
from cluster.monitoring.scrape import Readings, parse

HISTORY = run_files.history(20)
NOW = HISTORY[-1].time + 10
WELL = {
    "outertrain_version": 20,
    "outertrain_target_updates": 200,
    "outertrain_last_update_timestamp_seconds": HISTORY[-1].time,
    "outertrain_outer_loss_clamp": 10,
    "outertrain_checkpoint_version": 20,
    "outertrain_disk_free_bytes": 5e10,
    'outertrain_samples_total{verdict="accepted"}': 95,
    'outertrain_samples_total{verdict="stale"}': 5,
    'outertrain_samples_total{verdict="non_finite"}': 0,
}
CREW = {"outertrain_workers_target": 10, 'outertrain_workers{state="running"}': 9}


def readings(values: dict[str, float]) -> Readings:
    return Readings(True, parse("".join(f"{name} {value}\n" for name, value in values.items())))


def raised(
    learner: dict[str, float] | None = None, fleet: dict[str, float] | None = None, **changes: object
) -> list[str]:
    moment = Moment(HISTORY, readings(WELL | (learner or {})), readings(CREW | (fleet or {})), NOW)
    return alarms(moment._replace(**changes))


def test_all_is_well() -> None:
    assert raised() == []


def test_a_run_that_has_ended_is_well() -> None:
    assert raised(learner={}, fleet={}, now=NOW + 1e6) != []
    gone = Readings(False, None)
    assert alarms(Moment(HISTORY, gone, gone, NOW + 1e6)) == []


@pytest.mark.parametrize(
    "learner, fleet, sentence",
    [
        ({"outertrain_checkpoint_version": 18}, {}, "version 20 is not on disk, the last durable one is 18"),
        ({"outertrain_disk_free_bytes": 5e8}, {}, "only 500 MB are free"),
        ({'outertrain_samples_total{verdict="stale"}': 50}, {}, "34% of the samples are stale"),
        ({'outertrain_samples_total{verdict="non_finite"}': 5}, {}, "5% of the samples are non finite"),
        ({"outertrain_outer_loss_clamp": 1.0}, {}, "near the clamp of 1"),
        ({}, {'outertrain_workers{state="running"}': 8}, "8 of 10 workers run"),
        ({}, {'outertrain_workers{state="given_up"}': 1}, "1 workers failed so often"),
    ],
)
def test_one_thing_is_wrong(learner: dict[str, float], fleet: dict[str, float], sentence: str) -> None:
    [alarm] = raised(learner, fleet)
    assert sentence in alarm


@pytest.mark.parametrize(
    "learner",
    [
        {"outertrain_checkpoint_version": 19},
        {"outertrain_checkpoint_version": 0},
        {"outertrain_disk_free_bytes": 2e9},
        {'outertrain_samples_total{verdict="stale"}': 20},
        {"outertrain_outer_loss_clamp": 4.0},
    ],
)
def test_a_thing_that_is_not_wrong_yet(learner: dict[str, float]) -> None:
    assert raised(learner) == []


def test_stalled_is_measured_by_the_pace_of_the_run() -> None:
    assert raised(now=NOW + 500) == []
    assert raised(now=NOW + 700) == ["no outer update for 710 s"]
    slow = [record._replace(time=1000.0 * record.version) for record in HISTORY]  # an update in 1,000 s
    last = {"outertrain_last_update_timestamp_seconds": 20_000.0}
    assert raised(last, history=slow, now=24_000.0) == []
    assert raised(last, history=slow, now=26_000.0) == ["no outer update for 6000 s"]
    assert raised(last | {"outertrain_version": 200, "outertrain_checkpoint_version": 200}, history=slow, now=1e6) == []


def test_silence_of_a_process_that_announced_itself() -> None:
    moment = Moment(HISTORY, Readings(True, None), Readings(True, None), NOW)
    assert [a.split(" does not")[0] for a in alarms(moment)] == ["the learner", "the fleet"]


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


def test_what_prometheus_fires_is_named_once(prometheus: str) -> None:
    assert firing(prometheus, "night") == ["OutertrainStalled"]
    assert firing(prometheus, "another") == []


def test_no_prometheus() -> None:
    assert firing("http://127.0.0.1:1", "night") is None
