"""Outer-training in one call: deterministic, resumed bit for bit, and as the in-process run does it."""

import numpy as np
import pytest

from cluster.launchers import apprentice
from common.configfile import from_dict

CONFIG = from_dict(
    {
        "task": {"family": "quadratic", "inner_steps": 12},
        "optimizer": {"family": "sgd", "learning_rate": 0.01},
        "curriculum": {"start": 2, "end": 6, "updates": 5},
        "outer": {"updates": 6, "batch_samples": 3},
        "workers": {"count": 2, "segment": 6},
    }
)


def test_twice_the_same(tmp_path):
    one, other = (apprentice.train(CONFIG, [0, 3, 6], tmp_path / name) for name in "ab")
    np.testing.assert_array_equal(one.theta, other.theta)
    assert [line.version for line in one.history] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(one.kept[6], one.theta)
    assert one.kept[0].tolist() == pytest.approx([0.01, 0.9])
    assert not np.array_equal(one.kept[3], one.theta)


def test_cut_off_and_gone_on_with_it_is_the_same(tmp_path):
    whole = apprentice.train(CONFIG, [0, 2, 6], tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    circle = apprentice.begin(CONFIG, tmp_path / "cut")
    np.save(tmp_path / "cut" / "kept-0.npy", circle.theta)
    for _ in range(8):  # two updates and two samples of the third
        circle.advance()
        if circle.version == 2:
            np.save(tmp_path / "cut" / "kept-2.npy", circle.theta)
    resumed = apprentice.train(CONFIG, [0, 2, 6], tmp_path / "cut")
    np.testing.assert_array_equal(resumed.theta, whole.theta)
    np.testing.assert_array_equal(resumed.kept[2], whole.kept[2])
    assert [line.loss for line in resumed.history] == [line.loss for line in whole.history]


def test_a_finished_training_is_not_trained_further(tmp_path):
    once = apprentice.train(CONFIG, [6], tmp_path)
    again = apprentice.train(CONFIG, [6], tmp_path)
    np.testing.assert_array_equal(once.theta, again.theta)
    assert len(again.history) == 6
