"""Programs of a worker: compiled before the first sample; the user's modules come last on the import path."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tasks

from cluster.actors import worker_program
from cluster.actors.worker_program import JOBS, TRAINING, JobProgram, TrainingProgram, load_program, parse_config
from common.config import Config, CurriculumConfig, EstimatorConfig, EvaluationConfig, OptimizerConfig
from common.configfile import dump
from common.messages import Reply, pack_reply
from workers.bench.processes import COMPILED, counted
from workers.evaluation.jobs import Learned, learned_jobs

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
    """Replies with theta and needs three samples."""

    def __init__(self) -> None:
        self.calls = 0
        self.digest = ""

    def __call__(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        self.calls += 1
        theta = np.array([0.01, 0.9], "<f4").tobytes() if epoch < 0 else None
        return pack_reply(Reply(None, 1, 0, self.digest, theta, self.calls > 3, 1.0))


@pytest.mark.parametrize("use, used", [("merged", [0, 1, 1]), ("es", [1, 0, 0])])
def test_program_compiles_everything_once_before_a_sample(use: str, used: list[int]) -> None:
    learner = Learner()
    program = TrainingProgram(replace(CONFIG, estimator=EstimatorConfig(use=use)), "w0", learner)
    learner.digest = program._worker.digest
    unroll = program._worker.samplers[0].unroll
    functions = (unroll.start, unroll._forward, unroll._on_tape, unroll._reverse)
    compiled = [f._cache_size() for f in functions]
    assert compiled[0] >= 1 and compiled[1:] == used and learner.calls == 0
    with counted(COMPILED) as events:
        assert [program.step() for _ in range(4)] == [True, True, True, False]
    assert not events


def test_program_computes_jobs_with_and_without_training() -> None:
    job = learned_jobs(CONFIG, Learned(np.array([0.01, 0.9], np.float32)))[0].to_json()
    results = [program.perform(job) for program in (TrainingProgram(CONFIG, "w0", Learner()), JobProgram(CONFIG))]
    assert results[0]["train"] == results[1]["train"] and not JobProgram(CONFIG).step()


def test_load_program_creates_the_program_of_a_name() -> None:
    for name, kind in ((JOBS, JobProgram), (TRAINING, TrainingProgram)):
        assert type(load_program(name, dump(CONFIG), "w0", Learner())) is kind
    assert parse_config(dump(CONFIG)) == CONFIG


def test_load_program_user_modules_come_last_on_the_path(place: Path) -> None:
    (place / "user").mkdir()
    (place / "user" / "made_here.py").write_text(
        "class Made:\n    def __init__(self, config, uid, exchange):\n        self.uid = uid\n"
    )
    before = list(sys.path)
    program: Any = load_program("made_here:Made", dump(CONFIG), "w7", Learner())
    assert program.uid == "w7" and Path.cwd() == place / "user"
    assert sys.path == [*before, str(place / "user")]
    sys.modules.pop("made_here")


def test_add_user_folder_without_one_changes_nothing(place: Path) -> None:
    before = list(sys.path)
    worker_program.add_user_folder()
    assert sys.path == before and Path.cwd() == place
