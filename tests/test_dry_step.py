"""The check of a user's task in a process of its own, and how an interrupt ends it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.cli.dry_step import check_task
from cluster.cli.interrupt import Interrupt, Interrupted
from common.config import Config, TaskConfig

SLOW = "import pathlib, os, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
PROGRAM = "import sys; from cluster.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a task whose module takes long to import, and writes its process id first."""
    monkeypatch.delenv("OUTERTRAIN_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("slow_task.py").write_text(SLOW)
    return tmp_path


def started() -> int:
    """The process that checks the task, once it has imported its module."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if (path := Path("pid")).exists() and (text := path.read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError("the task was not imported")


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def train() -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", PROGRAM, "train", "own-task", "--set", "task.family=slow_task:task"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        yield process
        process.kill()


def test_interrupt_of_the_task_check_exits_with_130(train: "subprocess.Popen[str]") -> None:
    child = started()
    os.killpg(train.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    assert train.wait(60) == 130
    assert train.stderr is not None
    message = train.stderr.read()
    assert "Traceback" not in message and "ended with code" not in message
    assert "stopped before the training" in message
    assert ended(child) and not Path("runs/own-task").exists()


def test_check_task_interrupted_kills_the_process() -> None:
    config = replace(Config(), task=TaskConfig(family="slow_task:task"))

    with Interrupt() as interrupt, pytest.raises(Interrupted):

        def stop() -> None:
            if Path("pid").exists():
                signal.raise_signal(signal.SIGINT)
            interrupt.check()

        check_task(config, stop)
    assert ended(started())
