"""The window's ramp, its jitter and its bounds, by numbers and as a law."""

import numpy as np
import pytest

from common.config import CurriculumConfig, TaskConfig
from workers.curriculum import horizon, window

RAMP = CurriculumConfig(start=20, end=100, updates=100, jitter=0.2)


@pytest.mark.parametrize(
    "version, uniform, length",
    [(0, 0.5, 20), (50, 0.5, 60), (25, 0.5, 40), (100, 0.5, 100), (1000, 0.5, 100), (0, 0.0, 16), (50, 1.0, 72)],
)
def test_window_on_the_ramp_has_known_lengths(version, uniform, length):
    assert window(RAMP, version, uniform, 10_000) == length


def test_window_of_papers_ramp_reaches_10000_at_update_5000():
    paper = CurriculumConfig(start=50, end=10_000, updates=5000)
    assert [window(paper, v, 0.5, 10_000) for v in (0, 2500, 5000, 9000)] == [50, 5025, 10_000, 10_000]
    assert window(paper, 5000, 0.9, 10_000) == 10_000  # jitter never goes beyond the inner problem


def test_window_without_updates_has_its_final_length():
    assert window(CurriculumConfig(start=5, end=50, updates=0), 0, 0.5, 100) == 50


def test_window_of_a_falling_ramp_shrinks():
    assert window(CurriculumConfig(start=100, end=20, updates=10), 5, 0.5, 1000) == 60


def test_window_lies_between_one_and_the_steps_left():
    assert window(CurriculumConfig(start=1, end=1, jitter=0.9), 0, 0.0, 10) == 1
    assert [window(RAMP, 100, 0.5, left) for left in (1, 7, 99, 101)] == [1, 7, 99, 100]


def test_window_jitter_is_uniform_around_the_ramp():
    draws = np.random.default_rng(0).uniform(size=4000)
    lengths = np.array([window(RAMP, 100, u, 10_000) for u in draws])
    assert lengths.min() == 80 and lengths.max() == 120
    deviation = 40 / np.sqrt(12)
    assert abs(lengths.mean() - 100) < 4 * deviation / np.sqrt(4000)  # false alarm: 6e-5
    assert lengths.std() == pytest.approx(deviation, rel=0.04)


def test_window_without_jitter_ignores_the_draw():
    still = CurriculumConfig(start=20, end=100, updates=100, jitter=0.0)
    assert {window(still, 30, u, 10_000) for u in (0.0, 0.3, 0.99)} == {44}


def test_horizon_is_log_uniform_between_its_ends():
    task = TaskConfig(inner_steps=(10, 1000))
    assert [horizon(task, u) for u in (0.0, 0.5, 1.0)] == [10, 100, 1000]
    draws = np.array([horizon(task, u) for u in np.random.default_rng(0).uniform(size=2000)])
    assert abs((draws < 100).mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)  # false alarm: 6e-5
