"""The paper's preset, from the official archives to outer updates with the paper's network."""

import sys
from pathlib import Path

import pytest
from helpers.archives import write_archives

from cluster.cli.main import main
from common.data.class_store import ClassStore
from learner.history import read_history

SHORT = {
    "dataset.path": "store",
    "task.batch_size": 8,  # the paper's network, on small batches
    "curriculum.start": 1,  # the paper's 50, too long for a test
    "curriculum.end": 2,
    "outer.updates": 2,
    "outer.batch_samples": 2,
    "evaluation.tasks": 0,
}


@pytest.mark.heavy
def test_paper_preset_trains_on_official_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTERTRAIN_RUNS", raising=False)
    write_archives(tmp_path, size=32, train=3, test=1)
    assert main(["data", "prepare", str(tmp_path), "store"]) == 0
    assert ClassStore(Path("store"), 0.2).image_shape == (32, 32, 3)

    settings = [part for key, value in SHORT.items() for part in ("--set", f"{key}={value}")]
    assert main(["train", "paper", "--in-process", "--workers", "1", *settings]) == 0
    first, second = read_history(Path("runs/paper"))
    assert (first.version, second.version) == (1, 2)
    assert 2.0 < first.loss < 3.0  # ln 10 = 2.303, at the start of training on noise
    assert first.norms.theta != second.norms.theta
    assert "tensorflow" not in sys.modules
