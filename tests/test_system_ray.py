"""The train command on a local Ray: trained, interrupted and resumed, with no process left behind."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from learner.history import read_history

pytestmark = pytest.mark.cluster

TASK = """
from common.task import quadratic

def tasks(config):
    import stray  # is next to this module
    return quadratic(config.task)
"""
CONFIG = """
[task]
family = "own:tasks"
inner_steps = 8
options = {dimension = 2}
[optimizer]
family = "sgd"
learning_rate = 0.05
[curriculum]
start = 2
end = 4
updates = 3
[outer]
updates = 30
batch_samples = 4
journal = true
[workers]
count = 2
[evaluation]
tasks = 2
initialisations = 1
rate_count = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(TASK)
    (tmp_path / "stray.py").write_text("")
    (tmp_path / "common.py").write_text("raise AssertionError('a file of the user replaced one of ours')")
    (tmp_path / "random.py").write_text("raise AssertionError('a file of the user replaced a library')")
    (tmp_path / "run.toml").write_text(CONFIG)
    return tmp_path


def command(*arguments: str, folder: Path, **options: object) -> subprocess.Popen:
    """A command in a process group of its own, as a terminal would start it."""
    environment = {**os.environ, "HOME": str(folder / "home"), "OUTERTRAIN_RUNS": str(folder / "runs")}
    script = str(Path(sys.executable).parent / "outertrain")
    return subprocess.Popen(
        [script, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes with the folder in their environment: all that the command has started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in value for value in process.environ().values()):
                found.append(" ".join(process.cmdline()))
    return found


def wait_for_nothing(folder: Path) -> None:
    for _ in range(100):
        if not processes_in(folder):
            return
        signal.sigtimedwait([], 0.1)
    raise AssertionError(processes_in(folder))


def test_train_interrupted_resumes_evaluates_and_reports(folder: Path) -> None:
    with command("train", "run.toml", "--updates", "100000", folder=folder) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("update ") and not line.startswith("update 0/"):
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130, rest
    assert "resume with: outertrain train --name run --resume" in rest and "Traceback" not in rest
    wait_for_nothing(folder)
    run = folder / "runs" / "run"
    reached = read_history(run)[-1].version
    assert reached >= 1

    with command(
        "train", "--name", "run", "--resume", "--updates", str(reached + 20), "--json", folder=folder
    ) as process:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    facts = json.loads(out)
    history = read_history(run)
    assert facts["version"] == reached + 20 == history[-1].version
    assert [line.version for line in history] == list(range(1, reached + 21))
    assert {line.epoch for line in history} == {1, 2}
    assert facts["tasks"] == 2 and (run / "report" / "index.html").exists()
    assert len({line.workers_seen for line in history}) >= 1 and max(line.workers_seen for line in history) == 2
    wait_for_nothing(folder)
    assert not list(run.glob("metrics-*.json"))


def test_train_interrupted_twice_leaves_no_process(folder: Path) -> None:
    with command("train", "run.toml", "--updates", "100000", folder=folder) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("update "):
                break
        process.send_signal(signal.SIGINT)
        while "Stopping after" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(10) in (128 + signal.SIGINT, 130)
        process.stderr.close()
    wait_for_nothing(folder)


def test_train_impossible_task_exits_with_the_reason(folder: Path) -> None:
    (folder / "own.py").write_text(TASK.replace("    import stray", "    import missing"))
    with command("train", "run.toml", folder=folder) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and out == "", err
    last = err.splitlines()[-1]
    assert "No module named 'missing'" in last and "own.py:" in last, err  # the dry step found it
    assert not (folder / "runs" / "run").exists()
    wait_for_nothing(folder)
