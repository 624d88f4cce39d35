"""`train --from`: outer-training that begins at a given theta."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import run_files
from helpers.tasks import TINY

from cluster.cli.main import main
from cluster.runs import directory
from cluster.runs.directory import load_theta
from cluster.runs.learned import find, first_theta
from cluster.runs.open import Request, open_run
from common import pretrained
from common.config import Config, OptimizerConfig
from common.errors import UserError
from common.optimizer import initial_theta
from common.pretrained import Pretrained

QUADRATIC = (
    *("task.family=quadratic", "task.options={dimension=2}", "task.inner_steps=6", "curriculum.start=2"),
    *("curriculum.end=4", "optimizer.family=sgd", "outer.updates=2", "evaluation.tasks=0"),
)


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    run_files.draw_nothing(monkeypatch)


def theta_file(name: str, config: OptimizerConfig, value: float | None = None) -> np.ndarray:
    theta = initial_theta(Config(optimizer=config)) if value is None else np.full(2, value, np.float32)
    pretrained.save(Path(name), Pretrained(theta, config, "by a test"))
    return theta


def test_training_begins_at_theta_and_records_it() -> None:
    theta = theta_file("mine.theta", OptimizerConfig(family="sgd"), 0.25)
    settings = [part for key in QUADRATIC for part in ("--set", key)]
    assert (
        main(["train", "mini", "--in-process", "--no-evaluate", "--name", "a", "--from", "mine.theta", *settings]) == 0
    )
    run = directory.find("a")
    found, version = load_theta(run)
    assert version == 2 and not np.array_equal(found, theta)
    np.testing.assert_array_equal(load_theta(run, 0)[0], theta)
    record = json.loads((run.epochs / "e0001.json").read_text())
    assert record["start"] == pretrained_digest(theta)
    assert "the run began at theta of mine.theta (by a test)" in find("a").origin
    assert main(["train", "--in-process", "--no-evaluate", "--name", "a", "--resume", "--updates", "3"]) == 0
    assert load_theta(run)[1] == 3


def pretrained_digest(theta: np.ndarray) -> str:
    return hashlib.sha256(theta.astype("<f4").tobytes()).hexdigest()


def test_run_without_a_start_begins_at_random() -> None:
    run = open_run(Request("mini", "a", ())).run
    np.testing.assert_array_equal(first_theta(run, run.config()), initial_theta(run.config()))


def test_included_name_and_run_are_starts() -> None:
    opened = open_run(Request("quickstart-mlp", "a", (), start="small-conv-train"))
    want = find("small-conv-train").theta
    np.testing.assert_array_equal(first_theta(opened.run, opened.config), want)
    assert "small-conv-train" in opened.note


@pytest.mark.parametrize(
    "config, overrides, sentence",
    [
        (
            OptimizerConfig(family="celo2", layers=(4, 4)),
            TINY[1:],
            r"family celo2.*--set optimizer.family=celo2 --set optimizer.layers=\[4,4\]",
        ),
        (OptimizerConfig(), TINY[1:], r"1090 numbers of another shape.*--set optimizer.family=mlp"),
        (
            OptimizerConfig(hidden=3, time_features=False),
            TINY[1:],
            "add --set optimizer.hidden=3 --set optimizer.time_features=false",
        ),
    ],
)
def test_theta_of_another_family_or_size_is_named(config: OptimizerConfig, overrides: tuple, sentence: str) -> None:
    theta_file("other.theta", config)
    with pytest.raises(UserError, match=sentence):
        open_run(Request("mini", "a", overrides, start="other.theta"))
    assert directory.names() == []


def test_start_and_resume_exclude_each_other() -> None:
    with pytest.raises(UserError, match="--from begins a new run"):
        open_run(Request("mini", "a", (), resume=True, start="small-conv-train"))


def test_unknown_start_is_named(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "mini", "--from", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err and directory.names() == []
