"""What the commands of operations load: none of them the numerical stack, and those of a run directory not even Ray."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli.main import COMMANDS

FIXTURE = Path(__file__).parent / "fixtures/run-1"
NUMERICAL = {"jax", "jaxlib", "matplotlib", "scipy", "optax"}
HEAVY = {*NUMERICAL, "ray"}
PROGRAM = """
import json, sys
from unittest import mock
{setup}
from cluster.cli.main import main
code = main(sys.argv[1:])
print()
print(json.dumps([code, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""
# A cluster on which every named actor exists, and answers every call with a mock.
CLUSTER = """
import ray
from cluster.launchers import ray_cluster
ray_cluster.find_head = lambda: "127.0.0.1:1"
ray.init = ray.shutdown = ray.kill = ray.wait = mock.Mock()
ray.get = ray.get_actor = mock.MagicMock()
ray.util.list_named_actors = mock.Mock(return_value=[])
"""


def loaded(words: list[str], folder: Path, setup: str = "") -> set[str]:
    """The top-level modules that a successful command has loaded in a process of its own."""
    command = [sys.executable, "-c", PROGRAM.format(setup=setup), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return set(names)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OUTERTRAIN_RUNS", raising=False)
    shutil.copytree(FIXTURE, tmp_path / "runs/run-1")
    return tmp_path


@pytest.mark.parametrize("words", ["--help", "config", "config outer --json"])
def test_help_and_config_load_no_library_but_click(words: str, folder: Path) -> None:
    assert not loaded(words.split(), folder) & {*HEAVY, "numpy", "rich", "msgpack", "prometheus_client"}


@pytest.mark.parametrize(
    "words", ["status run-1", "status run-1 --json", "watch run-1 --once", "list", "list --json", "logs run-1"]
)
def test_reading_a_run_directory_loads_no_heavy_library(words: str, folder: Path) -> None:
    assert not loaded(words.split(), folder) & HEAVY


@pytest.mark.parametrize("words", ["scale run-1 3", "stop run-1 --now", "list --cluster", "logs run-1 --cluster"])
def test_cluster_operations_load_ray_and_no_jax(words: str, folder: Path) -> None:
    names = loaded(words.split(), folder, CLUSTER)
    assert "ray" in names and not names & NUMERICAL


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_loads_no_ray(name: str, folder: Path) -> None:
    assert "ray" not in loaded([name, "--help"], folder)
