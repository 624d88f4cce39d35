"""Evaluation of a launched run: by its own workers, with lower priority than training, and by other workers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import ray_environment  # noqa: F401  before Ray
from helpers.cluster import CONFIG, Scene, start_cluster, until

from cluster.cli.main import main
from cluster.launchers import ray_cluster
from common import jsonlines, pretrained
from common.config import OptimizerConfig

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore:os.fork")]
EVALUATION = """
[evaluation]
tasks = 2
initialisations = 1
rate_count = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RAY_ADDRESS", "")
    (tmp_path / "run.toml").write_text(CONFIG + EVALUATION)
    cluster = start_cluster(1, cores=2)
    yield tmp_path
    cluster.shutdown()


def test_evaluate_launched_run_with_and_without_its_workers(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["launch", "run.toml", "--name", "a", "--workers", "2"]) == 0
    target = folder / "runs/a/metrics-fleet.json"
    version = next_version()
    announced = target.read_bytes()
    capsys.readouterr()
    assert main(["evaluate", "a", "--cluster", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tasks"] == 2 and facts["version"] >= version
    assert next_version() > facts["version"]
    theta = pretrained.Pretrained(np.full(1, -3.0, np.float32), OptimizerConfig(family="adam"), "by hand")
    pretrained.save(folder / "adam.theta", theta)
    assert main(["evaluate", "adam.theta", "a", "--cluster", "--json"]) == 0
    several = json.loads(capsys.readouterr().out)
    assert several["run"] == "comparison-on-a" and several["optimizers"].keys() == {"adam.theta", "a"}
    assert all(one["tasks"] == 2 for one in several["optimizers"].values())
    rows = jsonlines.read(folder / "runs/comparison-on-a/evaluation/unrolls.jsonl")
    versions = {row["theta_sha256"]: row["version"] for row in rows if row["optimizer"] == "learned"}
    known = {name: versions[one["theta_sha256"]] for name, one in several["optimizers"].items()}
    assert known["adam.theta"] is None and known["a"] > facts["version"]

    alongside = [
        sys.executable,
        "-m",
        "cluster.cli.main",
        "evaluate",
        "a",
        "--workers",
        "1",
        "--json",
    ]  # with its own Ray
    done = subprocess.run(alongside, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] > facts["version"]
    assert target.read_bytes() == announced  # Prometheus still watches the fleet of the run

    check_commands_elsewhere(folder, capsys)

    assert main(["scale", "a", "0"]) == 0
    wait_until_no_workers()
    assert main(["evaluate", "a", "--cluster"]) == 2
    assert "the run has no workers: outertrain scale RUN N" in capsys.readouterr().err
    assert main(["stop", "a"]) == 0
    assert main(["launch", "--name", "a", "--resume"]) == 0
    assert "runs with 0 workers" in capsys.readouterr().err  # as many as were asked for last
    assert main(["stop", "a"]) == 0
    assert not list((folder / "runs/a").glob("metrics-*.json"))


def check_commands_elsewhere(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Where the run directory cannot be read, `list` and `logs` ask the run's actors."""
    (folder / "runs/a/log.txt").write_text("first\nlast line\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTERTRAIN_RUNS", str(folder / "elsewhere"))
        assert main(["list", "--cluster", "--json"]) == 0
        (status,) = json.loads(capsys.readouterr().out)
        assert (status["run"], status["state"], status["path"]) == ("a", "running", str(folder / "runs/a"))
        assert status["fleet"]["running"] == 2 and status["nodes"]
        assert main(["list", "--cluster"]) == 0 and "workers 2" in capsys.readouterr().out
        assert main(["logs", "a", "--cluster", "--lines", "1"]) == 0 and capsys.readouterr().out == "last line\n"
        assert main(["logs", "b", "--cluster"]) == 2
        assert "the run 'b' is not on this cluster (runs there: a)" in capsys.readouterr().err


def wait_until_no_workers() -> None:
    """Scaling returns before the workers have left; until then they accept jobs."""
    with ray_cluster.connected("a"):
        scene = Scene("a")
        until(lambda: scene.fleet().alive == 0, 60)


def next_version() -> int:
    """Waits for an update, and returns the version."""
    with ray_cluster.connected("a"):
        scene = Scene("a")
        scene.advance(1, 120)
        until(lambda: scene.fleet().running == 2, 60)
        return scene.learner().version
