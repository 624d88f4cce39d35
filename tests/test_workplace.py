"""What a worker process holds: compiled before the first sample, and the user's modules behind all others."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tasks

from cluster.actors import worker_program
from cluster.actors.worker_program import FOR_JOBS, FOR_RUNS, ForJobs, ForRuns, make_workplace, read_config
from common.config import Config, CurriculumConfig, EstimatorConfig, EvaluationConfig, OptimizerConfig
from common.configfile import dump
from common.messages import Reply, pack_reply
from workers.evaluation.items import learned_items

CONFIG = replace(
    Config(),
    task=tasks.TASKS["quadratic"],
    optimizer=OptimizerConfig(family="sgd"),
    curriculum=CurriculumConfig(start=2, end=4),
    evaluation=EvaluationConfig(tasks=1),
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


class Learner:
    """Answers with theta and wants three samples."""

    def __init__(self) -> None:
        self.calls = 0
        self.digest = ""

    def __call__(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        self.calls += 1
        theta = np.array([0.01, 0.9], "<f4").tobytes() if epoch < 0 else None
        return pack_reply(Reply(None, 1, 0, self.digest, theta, self.calls > 3, 1.0))


@pytest.mark.parametrize("use, reversed", [("merged", 1), ("es", 0)])
def test_everything_is_compiled_before_the_first_sample_and_once(use: str, reversed: int) -> None:
    learner = Learner()
    made = ForRuns(replace(CONFIG, estimator=EstimatorConfig(use=use)), "w0", learner)
    learner.digest = made._worker.digest
    unroll = made._worker.sampler.unroll
    compiled = [f._cache_size() for f in (unroll.start, unroll._forward, unroll._reverse)]
    assert compiled[0] >= 1 and compiled[1:] == [1, reversed] and learner.calls == 0
    assert [made.step() for _ in range(4)] == [True, True, True, False]
    assert [f._cache_size() for f in (unroll.start, unroll._forward, unroll._reverse)] == compiled


def test_items_are_computed_beside_samples_and_alone() -> None:
    item = learned_items(CONFIG, np.array([0.01, 0.9], np.float32))[0]
    rows = [made.perform(item) for made in (ForRuns(CONFIG, "w0", Learner()), ForJobs(CONFIG))]
    assert rows[0]["train"] == rows[1]["train"] and not ForJobs(CONFIG).step()


def test_a_program_is_made_by_its_name_from_the_configuration_that_travels() -> None:
    for name, kind in ((FOR_JOBS, ForJobs), (FOR_RUNS, ForRuns)):
        assert type(make_workplace(name, dump(CONFIG), "w0", Learner())) is kind
    assert read_config(dump(CONFIG)) == CONFIG


def test_the_users_modules_are_found_behind_everything_else(place: Path) -> None:
    (place / "user").mkdir()
    (place / "user" / "made_here.py").write_text(
        "class Made:\n    def __init__(self, config, uid, exchange):\n        self.uid = uid\n"
    )
    before = list(sys.path)
    made: Any = make_workplace("made_here:Made", dump(CONFIG), "w7", Learner())
    assert made.uid == "w7" and Path.cwd() == place / "user"
    assert sys.path == [*before, str(place / "user")]
    sys.modules.pop("made_here")


def test_without_a_folder_of_the_user_nothing_changes(place: Path) -> None:
    before = list(sys.path)
    worker_program.enter_user_folder()
    assert sys.path == before and Path.cwd() == place
