"""Commands whose cluster is not there: a sentence in time, and signals that end them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ray_environment  # noqa: F401  before Ray

from cluster.actors import ray_address
from cluster.cli.main import main
from common.errors import UserError


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A program that accepts connections and never replies, as a head that hangs."""
    with socket.socket() as listening:
        listening.bind(("", 0))  # Ray replaces the loopback address by the one of this machine
        listening.listen(8)
        listening.settimeout(30)
        yield listening


def address_of(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    "address, said",
    [
        ("http://10.0.0.1:8265", "an address for `ray job submit`.*RAY_ADDRESS=auto"),
        ("ray://10.0.0.1:10001", "an address for Ray Client.*RAY_ADDRESS=auto"),
        ("nonsense", "is not an address .*HOST:PORT"),
        ("local", "names no cluster"),
        ("127.0.0.1:1", r"no head of a Ray cluster answers at .*Connection refused"),
    ],
)
def test_find_head_that_cannot_be_used_is_a_user_error(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=said):
        ray_address.find_head()


@pytest.mark.parametrize("command", [["stop", "a"], ["scale", "a", "3"], ["launch", "--name", "a"]])
def test_commands_without_their_head_leave_nothing_behind(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RAY_ADDRESS", " 127.0.0.1:1\n")  # as files and templates leave it
    assert main(command) == 2
    assert re.search(r"no head of a Ray cluster answers at \S+:1 \(", capsys.readouterr().err)
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_command_whose_head_hangs(silent: socket.socket, number: signal.Signals, tmp_path: Path) -> None:
    environment = {
        **os.environ, "RAY_ADDRESS": address_of(silent), "OUTERTRAIN_RUNS": str(tmp_path), "TMPDIR": str(tmp_path)
    }  # fmt: skip
    program = ["env", "--default-signal=INT", sys.executable, "-m", "cluster.cli.main", "launch", "--name", "a"]
    process = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True)
    connections = [silent.accept()[0] for _ in range(2)]  # the second one is Ray's
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in said
    assert time.monotonic() - began < 5 and not (tmp_path / "a").exists()
    assert not list(tmp_path.glob("outertrain-*"))
    for connection in connections:
        connection.close()


def test_find_head_that_hangs_is_a_user_error_in_time(silent: socket.socket) -> None:
    program = "from cluster.actors import ray_address; ray_address.ANSWER_S = 1.0; ray_address.find_head()"
    environment = {**os.environ, "RAY_ADDRESS": address_of(silent)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True, timeout=50
    )
    assert "does not answer as the head of a Ray cluster" in done.stderr
