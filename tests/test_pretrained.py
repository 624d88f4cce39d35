"""Theta files, and the learned optimizers that are included."""

from pathlib import Path

import numpy as np
import pytest

from common import checkpoint, configfile, pretrained
from common.config import OptimizerConfig
from common.errors import UserError
from common.optimizer import make_family
from common.pretrained import Pretrained
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import UnrollJob, encode


def test_theta_file_round_trip(tmp_path: Path) -> None:
    given = Pretrained(np.arange(177, dtype=np.float32), OptimizerConfig(hidden=7, time_features=False), "a test")
    pretrained.save(tmp_path / "a.theta", given)
    found = pretrained.load(tmp_path / "a.theta")
    np.testing.assert_array_equal(found.theta, given.theta)
    assert found[1:] == given[1:]


@pytest.mark.parametrize(
    "record, sentence",
    [
        ([1, 2], "is not a theta file"),
        ({"kind": "learner", "theta": np.zeros(3, np.float32)}, "is not a theta file"),
        ({"kind": "theta", "theta": np.zeros((3, 1), np.float32)}, "is not a theta file"),
        (
            {"kind": "theta", "theta": np.zeros(3, np.float32), "optimizer": {"hiden": 3}, "origin": ""},
            "optimizer.hiden",
        ),
        ({"kind": "theta", "theta": np.zeros(3, np.float32), "optimizer": {"hidden": 0}, "origin": ""}, "at least 1"),
    ],
)
def test_record_that_is_not_a_theta_file_is_rejected(tmp_path: Path, record: object, sentence: str) -> None:
    checkpoint.save(tmp_path / "a.theta", record)
    with pytest.raises(UserError, match=sentence):
        pretrained.load(tmp_path / "a.theta")


def test_included_name_takes_precedence_over_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = pretrained.names()[0]
    Path(name).write_text("mine")
    shipped, missing = pretrained.find(name), pretrained.find("nothing of that name")
    assert shipped is not None and shipped.name == f"{name}.theta" and missing is None
    assert pretrained.find(f"./{name}") == Path(name)


@pytest.mark.parametrize("name", pretrained.names())
def test_included_optimizer_has_a_card_and_fits_its_family(name: str) -> None:
    path = pretrained.find(name)
    assert path is not None
    learned = pretrained.load(path)
    assert len(learned.theta) == make_family(learned.optimizer).size and np.isfinite(learned.theta).all()
    card = path.with_suffix(".md").read_text()
    for part in (f"# {name}", "outertrain train", "outertrain evaluate", "ratio"):
        assert part in card


@pytest.mark.heavy
def test_included_optimizers_beat_adam_on_an_unseen_task() -> None:
    evaluator = Evaluator(
        configfile.load("quickstart-mlp")
    )  # both have its [optimizer]; valid losses are read at points
    adam = [evaluator.run(UnrollJob("adam", 3, rate=rate)) for rate in (0.003, 0.01, 0.03)]
    for objective in ("train", "valid"):
        path = pretrained.find(f"small-conv-{objective}")
        assert path is not None
        learned = pretrained.load(path)
        assert learned.optimizer == evaluator.config.optimizer
        ours = evaluator.run(UnrollJob("learned", 3, theta=encode(learned.theta)))
        assert ours.mean(objective) < min(row.mean(objective) for row in adam)
