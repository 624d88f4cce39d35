"""The train command: what its times count, and what it says when it is interrupted."""

import json
import subprocess
import sys
import time
from pathlib import Path

from cluster.cli.train import stopped
from cluster.runs.directory import RunDirectory
from learner.lineage import claim
from learner.status import LearnerStatus

CONFIG = """
[task]
family = "quadratic"
inner_steps = 8
[optimizer]
family = "sgd"
[curriculum]
start = 2
end = 4
[outer]
updates = 1
batch_samples = 2
"""
BECOMES_OUTERTRAIN = """
import os, sys, time
time.sleep(0.5)  # an installation, say
print(time.time(), flush=True)
os.execv(sys.executable, [sys.executable, "-m", "cluster.cli.main", *sys.argv[1:]])
"""


def test_train_times_exclude_what_precedes_an_exec(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    command = [sys.executable, "-c", BECOMES_OUTERTRAIN, "train", "run.toml", "--in-process", "--no-evaluate", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        executed, facts, end = float(process.stdout.readline()), json.loads(process.stdout.readline()), time.time()
        process.communicate()
    assert process.returncode == 0
    assert 0 < facts["seconds_to_first_update"] <= facts["seconds_total"] <= end - executed


def test_stopped_names_the_last_version_on_disk(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    claim(run.epochs, None, 0.0)
    run.checkpoints.mkdir()
    (run.checkpoints / "e0001-v0000004.ckpt").write_bytes(b"")
    assert stopped(run, LearnerStatus(version=4)).startswith("stopped with a checkpoint; resume with:")
    full = LearnerStatus(version=9, checkpoint_error="No space left on device")
    assert "stopped at version 9, but version 4 is the last one on disk (No space left on device)" in stopped(run, full)
