"""What the commands of operations load: none of them the numerical stack, and those of a run directory not even Ray."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
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
for words in sys.argv[1:]:
    code = main(words.split())
    print()
    print("loaded", json.dumps([words, code, sorted({{name.partition(".")[0] for name in sys.modules}})]))
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


def loaded(commands: Sequence[str], folder: Path, setup: str = "") -> dict[str, set[str]]:
    """The top-level modules that a new process has loaded after each of these successful commands, one after the other."""
    program = [sys.executable, "-c", PROGRAM.format(setup=setup), *commands]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=True)
    lines = [
        json.loads(line.removeprefix("loaded ")) for line in done.stdout.splitlines() if line.startswith("loaded ")
    ]
    assert [(words, code) for words, code, _ in lines] == [(words, 0) for words in commands], done.stderr
    return {words: set(names) for words, _, names in lines}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OUTERTRAIN_RUNS", raising=False)
    shutil.copytree(FIXTURE, tmp_path / "runs/run-1")
    return tmp_path


def test_help_and_config_load_no_library_but_click(folder: Path) -> None:
    unwanted = {*HEAVY, "numpy", "rich", "msgpack", "prometheus_client"}
    for words, names in loaded(["--help", "config", "config outer --json"], folder).items():
        assert not names & unwanted, words


def test_reading_a_run_directory_loads_no_heavy_library(folder: Path) -> None:
    commands = ["status run-1", "status run-1 --json", "watch run-1 --once", "list", "list --json", "logs run-1"]
    for words, names in loaded(commands, folder).items():
        assert not names & HEAVY, words


def test_cluster_operations_load_ray_and_no_jax(folder: Path) -> None:
    commands = ["scale run-1 3", "stop run-1 --now", "list --cluster", "logs run-1 --cluster"]
    for words, names in loaded(commands, folder, CLUSTER).items():
        assert "ray" in names and not names & NUMERICAL, words


def test_help_of_each_command_loads_no_ray(folder: Path) -> None:
    for words, names in loaded([f"{name} --help" for name in COMMANDS], folder).items():
        assert "ray" not in names, words
