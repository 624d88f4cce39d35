"""The commands that `outertrain.train` and `outertrain.evaluate` run: their output, Ctrl-C, settings, and result."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from cluster.api import commands
from cluster.runs import directory
from common import checkpoint, configfile
from common.config import Config, OptimizerConfig
from common.errors import UserError
from common.optimizer import make_family
from learner import checkpoints, lineage

ROOT = Path(__file__).parent.parent
CALLER = """
import signal, sys
from cluster.api import commands
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test in the background has inherited as ignored
sys.executable = sys.argv[1]
commands._run(["train"])
"""
TRAINING = """
import sys, time
from cluster.cli.interrupt import Interrupt
with Interrupt() as interrupt:
    print("started", file=sys.stderr)
    end = time.monotonic() + 60
    while not interrupt.asked and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(float(open("seconds").read()))  # in which a second signal would arrive
    open("checkpoint", "w").close()
    print("checkpoint written", file=sys.stderr)
"""


def program(folder: Path, code: str) -> str:
    """The path of an executable, which stands for Python with the arguments of a command."""
    path = folder / "command"
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return str(path)


def test_command_may_print_any_amount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's own code prints; a pipe holds 64 KiB."""
    code = "print('x' * 200_000)\nprint('{\"run\": \"a\"}')\n"
    monkeypatch.setattr(commands.sys, "executable", program(tmp_path, code))
    assert commands._run(["train"]) == {"run": "a"}


@pytest.fixture
def caller(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process, first of a group of its own, that runs the command `TRAINING`, which has started."""
    (tmp_path / "seconds").write_text(str(getattr(request, "param", 0.5)))
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, program(tmp_path, TRAINING)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as process:
        assert process.stderr is not None and process.stderr.readline() == "started\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_interrupted_command_writes_its_checkpoint(
    send: Callable[[int, int], None], caller: subprocess.Popen[str], tmp_path: Path
) -> None:
    """A terminal interrupts all processes of its foreground group, `kill` a single one."""
    send(caller.pid, signal.SIGINT)
    said = caller.communicate()[1]
    assert (tmp_path / "checkpoint").exists()
    assert said.index("Stopping") < said.index("checkpoint written") < said.index("KeyboardInterrupt")
    assert caller.returncode == -signal.SIGINT


@pytest.mark.parametrize("caller", [60], indirect=True, ids=["slow"])
def test_second_interrupt_quits_the_command(caller: subprocess.Popen[str], tmp_path: Path) -> None:
    assert caller.stderr is not None
    os.killpg(caller.pid, signal.SIGINT)
    while "Stopping" not in caller.stderr.readline():
        pass
    os.killpg(caller.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in caller.communicate()[1]
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("outer.learning_rate", np.float64(1e-3), 1e-3),
        ("outer.learning_rate", jnp.float32(0.5), 0.5),
        ("outer.updates", np.int64(7), 7),
        ("outer.journal", np.bool_(True), True),
        ("task.units", np.array([16, 8, 4]), (16, 8, 4)),
        ("task.units", (np.int32(16), 8, jnp.int32(4)), (16, 8, 4)),
        ("task.augment", "global,tensor", ("global", "tensor")),
        ("dataset.path", Path("data") / "mine", "data/mine"),
        ("outer.options", {"b1": np.float32(0.5)}, {"b1": 0.5}),
    ],
)
def test_settings_of_python_become_those_of_toml(key: str, value: Any, expected: Any) -> None:
    options = commands._options({"task.family": "conv", key: value}, in_process=False)
    config = configfile.load("quickstart", options[1::2])  # without "--set" and "--json"
    section, _, name = key.partition(".")
    assert getattr(getattr(config, section), name) == expected


@pytest.mark.parametrize("value", [None, {1, 2}, 1j, [3, None], {"a": object()}, np.datetime64("2026-01-01"), b"data"])
def test_setting_that_toml_cannot_hold_is_named(value: Any) -> None:
    with pytest.raises(
        UserError, match=r"task\.options = .* has the wrong type: a number, text, list or table is expected"
    ):
        commands._options({"task.options": value}, in_process=False)


def test_result_gives_an_optimizer_that_sees_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path))
    optimizer = OptimizerConfig(family="mlp_muon", progress=True)
    run = directory.create("a", Config(optimizer=optimizer))
    lineage.claim(run.epochs, None, 0.0)
    theta = np.zeros(make_family(optimizer).size, np.float32)
    checkpoint.save(checkpoints.path_of(run.checkpoints, lineage.Position(1, 0)), {"theta": theta})
    params = {"w": jnp.ones((2, 3))}
    state = commands.Trained("a", run.page, {}).optimizer(total_steps=10).init(params)
    assert int(state[0].total) == 10
