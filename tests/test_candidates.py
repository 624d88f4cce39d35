"""Candidates for the best version: kept under a name of their own, compared when their evaluation is complete."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.jobs import candidates
from cluster.runs import best
from cluster.runs.directory import RunDirectory
from common import checkpoint
from common.config import Config, EvaluationConfig
from learner import checkpoints
from learner.lineage import Position, claim
from workers.evaluation.results import BySplit, UnrollResult

CONFIG = replace(Config(), evaluation=EvaluationConfig(tasks=2))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path)
    for folder in (made.checkpoints, made.evaluation):
        folder.mkdir()
    claim(made.epochs, None, 0.0)
    return made


def saved(run: RunDirectory, version: int, epoch: int = 1) -> Path:
    path = checkpoints.path_of(run.checkpoints, Position(epoch, version))
    checkpoint.save(path, {"theta": np.full(3, version, np.float32)})
    return path


def results(run: RunDirectory, losses: dict[int, float]) -> dict[str, dict]:
    """Of both tasks, for these versions among the candidates."""
    found = {}
    for position, wanted in candidates.jobs_of(run, CONFIG):
        for job in wanted if position.version in losses else ():
            split = BySplit(*[(1.0,)] * 3)
            means = BySplit(*[losses[position.version]] * 3)
            result = UnrollResult(
                *(job.name, "learned", "digest", "train", None, job.spec["task"], 0),
                *(job.spec["outer_split"], position.version),
                *((1,), split, means, None, 0.1),
            )
            found[job.name] = result.to_json()
    return found


def test_settle_keeps_the_least_loss_and_what_is_unfinished(run: RunDirectory) -> None:
    for version in (0, 5, 10, 15):
        candidates.add(run, saved(run, version))
        checkpoints.path_of(run.checkpoints, Position(1, version)).unlink()  # as the learner's retention does
    found = candidates.settle(run, CONFIG, results(run, {0: 2.0, 5: 1.0, 10: 1.5}))
    assert found is not None and (found.version, found.loss, found.evaluated) == (5, 1.0, 3)
    assert best.read(run) == found and found.outer_split == "outer_train"
    assert [p.version for p in checkpoints.positions(run.evaluated)] == [5, 15]
    later = candidates.settle(run, CONFIG, results(run, {5: 1.0, 15: 0.5}))
    assert later is not None and later.version == 15
    assert [p.version for p in checkpoints.positions(run.evaluated)] == [15]


def test_settle_without_complete_evaluation_names_none(run: RunDirectory) -> None:
    candidates.add(run, saved(run, 5))
    half = dict(list(results(run, {5: 1.0}).items())[:1])
    assert candidates.settle(run, CONFIG, half) is None and best.read(run) is None


def test_jobs_of_leaves_out_corrupt_and_foreign_candidates(run: RunDirectory) -> None:
    kept = [candidates.add(run, saved(run, version)) for version in (3, 7, 9)]
    claim(run.epochs, Position(1, 7), 0.0)  # a later learner starts from version 7
    assert kept[0] is not None
    kept[0].unlink()
    kept[0].write_bytes(b"no checkpoint")
    assert [position.version for position, _ in candidates.jobs_of(run, CONFIG)] == [7]
    assert not kept[0].exists()


def test_add_without_hard_links_copies(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(source: Path, target: Path) -> None:
        raise PermissionError("no hard links")

    path = saved(run, 5)
    monkeypatch.setattr(os, "link", unsupported)
    kept = candidates.add(run, path)
    assert kept is not None and kept.read_bytes() == path.read_bytes()
    assert os.listdir(run.evaluated) == [path.name]


def test_add_of_a_checkpoint_that_is_gone_is_none(run: RunDirectory) -> None:
    assert candidates.add(run, run.checkpoints / "e0001-v0000003.ckpt") is None
    assert checkpoints.positions(run.evaluated) == []
