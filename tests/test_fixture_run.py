"""A run directory of the first format is read, and resumed to what the run would have become without interruption."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from cluster.cli.main import main
from cluster.runs import directory
from cluster.runs.directory import load_theta
from common import checkpoint, configfile
from learner.history import read_history

FIXTURE = Path(__file__).parent / "fixtures/run-1"
VERSION, UPDATES = 4, 24


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("cluster.report.page.write_report", lambda path, evaluation: path / "report")
    shutil.copytree(FIXTURE, tmp_path / "runs/run-1")
    return tmp_path / "runs"


def resume(name: str, updates: int = UPDATES) -> bytes:
    """Theta at the end, of a run that is resumed until it has so many updates."""
    options = ["--resume", "--updates", str(updates), "--in-process", "--no-evaluate"]
    assert main(["train", "--name", name, *options]) == 0
    theta, version = load_theta(directory.find(name))
    assert version == updates
    return theta.tobytes()


def test_fixture_run_status_and_history_are_read(capsys: pytest.CaptureFixture) -> None:
    assert main(["status", "run-1", "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state["version"], state["target"], state["state"], state["epoch"]) == (VERSION, UPDATES, "stopped", 1)
    lines = [json.dumps(record.to_json()) + "\n" for record in read_history(directory.find("run-1").path)]
    assert "".join(lines) == (FIXTURE / "history.jsonl").read_text()
    assert main(["logs", "run-1"]) == 0 and "epoch 1 starts at version 0" in capsys.readouterr().out


def test_fixture_run_config_equals_its_source() -> None:
    assert directory.find("run-1").config() == configfile.load(str(FIXTURE / "source.toml"))


@pytest.mark.heavy
def test_fixture_run_resumed_in_parts_gives_the_same_theta(runs: Path) -> None:
    shutil.copytree(FIXTURE, runs / "parts")
    for updates in (VERSION + 1, 11):
        resume("parts", updates)
    assert resume("parts") == resume("run-1")


@pytest.mark.heavy
def test_fixture_run_resumed_equals_a_fresh_run(runs: Path) -> None:
    """Bit for bit where this processor computes the fixture's own bits up to its checkpoint, else to rounding."""
    fresh = ["--name", "fresh", "--set", "outer.keep_checkpoints=99", "--in-process", "--no-evaluate"]
    assert main(["train", str(FIXTURE / "source.toml"), *fresh]) == 0
    whole = load_theta(directory.find("fresh"))[0]
    resumed = np.frombuffer(resume("run-1"), np.float32)
    np.testing.assert_allclose(resumed, whole, rtol=1e-3, atol=1e-4)
    if state(runs / "fresh") == state(FIXTURE):
        assert resumed.tobytes() == whole.tobytes()


def state(run: Path) -> dict[str, object]:
    """All that a checkpoint of the fixture's version holds, trajectories included."""
    record = checkpoint.load(run / f"checkpoints/e0001-v{VERSION:07}.ckpt")
    return {key: repr(value) for key, value in record.items()} | {"theta": record["theta"].tobytes()}


def test_fixture_run_is_not_part_of_the_wheel() -> None:
    project = tomllib.loads((FIXTURE.parents[2] / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"] == ["common", "learner", "workers", "cluster"]
    assert wheel["sources"] == {"cluster/public/outertrain": "outertrain"}
