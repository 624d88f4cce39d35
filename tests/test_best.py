"""The best version of a run, as a file says it."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.cli.main import main
from cluster.runs import best, directory
from cluster.runs.best import Best
from cluster.runs.learned import find
from common import checkpoint
from common.config import Config
from common.errors import UserError
from learner import checkpoints, lineage
from learner.lineage import Position

FOUND = Best(version=40, epoch=2, loss=1.23456, objective="valid", tasks=20, evaluated=5, outer_split="outer_train")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> directory.RunDirectory:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path))
    return directory.create("a", Config())


def test_best_is_read_as_it_was_written(run: directory.RunDirectory) -> None:
    assert best.read(run) is None
    best.write(run, FOUND)
    lineage.claim(run.epochs, None, 0.0)
    lineage.claim(run.epochs, Position(1, 10), 0.0)
    assert best.read(run) == FOUND and best.version_of(run) == 40
    assert FOUND.sentence() == (
        "version 40, mean valid loss 1.235 on 20 tasks of outer-train classes, of 5 evaluated versions"
    )


def test_best_of_an_older_version_says_by_which_tasks(run: directory.RunDirectory) -> None:
    old = {key: value for key, value in FOUND.to_json().items() if key != "outer_split"}
    run.best_file.write_text(json.dumps(old))
    found = best.read(run)
    assert found is not None and "on 20 of the comparison's own tasks" in found.sentence()


def test_versions_of_an_abandoned_branch_are_not_found(run: directory.RunDirectory) -> None:
    """Versions 4 and 6 were evaluated; then the run was resumed from version 3, and version 6 is another theta."""
    for folder, epoch, version in (
        ("evaluated", 1, 4),
        ("evaluated", 1, 6),
        ("checkpoints", 1, 3),
        ("checkpoints", 2, 6),
    ):
        (run.path / folder).mkdir(exist_ok=True)
        theta = np.full(2, 10 * epoch + version, np.float32)
        checkpoint.save(checkpoints.path_of(run.path / folder, Position(epoch, version)), {"theta": theta})
    lineage.claim(run.epochs, None, 0.0)
    lineage.claim(run.epochs, Position(1, 3), 0.0)
    best.write(run, FOUND._replace(version=6, epoch=1))
    with pytest.raises(UserError, match="6, is no longer part of it"):
        best.version_of(run)
    with pytest.raises(UserError, match=r"no checkpoint of version 4: choose one of \[3, 6\]"):
        directory.load_theta(run, 4)
    assert directory.load_theta(run, 6)[0].tolist() == [26, 26]


def changed(**fields: object) -> str:
    return json.dumps(FOUND.to_json() | fields)


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"version": 3}', "null", "[" * 100_000),
        *(changed(version="x"), changed(version=True), changed(loss="y"), changed(loss=10**400), changed(objective=1)),
    ],
    ids=lambda content: content[:30],
)
def test_read_corrupt_file_says_what_to_do(run: directory.RunDirectory, content: str) -> None:
    run.best_file.write_text(content)
    with pytest.raises(UserError, match=r"best\.json is corrupt.*delete it"):
        best.read(run)


def test_export_best_of_a_run_without_says_why(run: directory.RunDirectory, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", "a", "--version", "best", "-o", "x.theta"]) == 2
    assert "set evaluation.every" in capsys.readouterr().err
    assert main(["export", "a", "--version", "newest", "-o", "x.theta"]) == 2
    assert "neither the number of an outer update nor 'best'" in capsys.readouterr().err


def test_version_that_is_another_text_is_rejected(run: directory.RunDirectory) -> None:
    """It is not taken for the best version."""
    lineage.claim(run.epochs, None, 0.0)
    best.write(run, FOUND._replace(epoch=1))
    for text in ("40", "Best", ""):
        with pytest.raises(UserError, match=f"version = '{text}': give the outer update as an integer, or 'best'"):
            find("a", text)
