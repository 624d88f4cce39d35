"""The trackers' real libraries: what was sent is read back from TensorBoard, MLflow (files and a server) and wandb.

pip install -c deploy/constraints.txt -e '.[test,tracking]' && pip install 'mlflow>=2.16' && pytest -m tracking

The server is in mlflow, not in mlflow-skinny. It is installed without the constraints: with them, pip takes a release of
2022, because newer ones do not accept their pyarrow.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.records import record

from cluster.runs import directory
from cluster.runs.directory import RunDirectory
from cluster.tracking.tracker import Tracker, store
from common.config import Config
from common.config.tracking import TrackingConfig

pytestmark = [pytest.mark.tracking, pytest.mark.filterwarnings("ignore")]


def run_of(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, uri: str = "") -> RunDirectory:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(folder))
    made = directory.create("a", Config(tracking=TrackingConfig(sinks=(name,), uri=uri)))
    made.report.mkdir()
    made.page.write_text("report")
    return made


def tracked_twice(run: RunDirectory) -> None:
    """Three updates, a resumed run that repeats the third and makes a fourth, and the files."""
    [name] = run.config().tracking.sinks
    for before, versions in ((0, (1, 2, 3)), (2, (3, 4))):
        tracker = Tracker(run, name, before)
        for version in versions:
            tracker.put(record(version)._replace(loss=10.0 * version + before))
        tracker.close(120)
        assert tracker.lost == 0
    assert store(run, [run.page, run.config_file]) == []


def test_tensorboard_reads_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    run = run_of(tmp_path, "tensorboard", monkeypatch)
    tracked_twice(run)
    folder = run.path / "tracking" / "tensorboard"
    events = EventAccumulator(str(folder), purge_orphaned_data=True)
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("outer/loss")] == [(1, 10.0), (2, 20.0), (3, 32.0), (4, 42.0)]
    texts = {
        tag: tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto)[0].decode()
        for tag in ("configuration", "files")
    }
    assert "| outer.updates |" in texts["configuration"] and str(run.page) in texts["files"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An MLflow server on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store_uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options = ["--backend-store-uri", store_uri, "--artifacts-destination", str(tmp_path / "files")]
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def check_mlflow(run: RunDirectory, uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    identity = (run.path / "tracking" / "mlflow.id").read_text().strip()
    found = client.get_run(identity)
    history = sorted((m.step, m.value) for m in client.get_metric_history(identity, "loss"))
    assert history == [(1, 10.0), (2, 20.0), (3, 30.0), (3, 32.0), (4, 42.0)]
    assert found.info.status == "FINISHED" and found.info.run_name == "a"
    assert found.data.params["outer.updates"] == str(run.config().outer.updates)
    assert {entry.path for entry in client.list_artifacts(identity)} == {"index.html", "config.toml"}
    [experiment] = [e for e in client.search_experiments() if e.name == "outertrain"]
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_mlflow_files_hold_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = run_of(tmp_path, "mlflow", monkeypatch)
    tracked_twice(run)
    check_mlflow(run, (run.path / "tracking" / "mlflow").as_uri())


def test_mlflow_server_holds_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    run = run_of(tmp_path / "runs", "mlflow", monkeypatch, server)
    tracked_twice(run)
    check_mlflow(run, server)


def test_mlflow_server_that_is_down_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(tmp_path, "mlflow", monkeypatch, "http://127.0.0.1:9")
    tracker = Tracker(run, "mlflow", 0)
    before = time.monotonic()
    tracker.put(record(1))
    assert time.monotonic() - before < 0.5
    tracker.close(120)
    assert tracker.lost == 1 and "the tracker mlflow failed" in caplog.text


def log_entries(data: bytes) -> Iterator[bytes]:
    """The entries of a file of wandb: a header of 7 bytes, then the log format of LevelDB."""
    at, entry = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        entry += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # complete, or the last part
            yield entry
            entry = b""


def test_wandb_offline_files_hold_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = run_of(tmp_path, "wandb", monkeypatch)
    tracked_twice(run)
    identity = (run.path / "tracking" / "wandb.id").read_text().strip()
    files = sorted((run.path / "tracking" / "wandb").rglob("*.wandb"))
    assert len(files) == 3 and all(identity in path.name for path in files)
    found = []
    for path in files:
        for data in log_entries(path.read_bytes()):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(data)
            if message.WhichOneof("record_type") == "history":
                found.append({item.key or item.nested_key[0]: item.value_json for item in message.history.item})
    assert sorted(float(row["loss"]) for row in found if "loss" in row) == [10.0, 20.0, 30.0, 32.0, 42.0]
