"""Tuning of baselines: the grid of learning rates, and the best settings by hand numbers."""

import numpy as np

from common.config import EvaluationConfig
from workers.evaluation.tuning import LossTable, Setting, grid_rates, rates_between

GRID = EvaluationConfig()
TABLE = LossTable.of_rates([0.01, 0.1, 1.0], np.array([[2.0, 3.0, 1.0], [1.0, 1.6, 1.0], [1.2, 1.0, 4.0]]))


def test_grid_rates_are_the_papers() -> None:
    rates = grid_rates(GRID)
    assert len(rates) == 11 and rates[0] == 1e-4 and rates[-1] == 10
    np.testing.assert_allclose(np.diff(np.log10(rates)), 0.5, atol=1e-5)


def test_rates_between_are_geometric_means_of_neighbours() -> None:
    rates, between = grid_rates(GRID), rates_between(GRID)
    np.testing.assert_allclose(between, np.sqrt(np.multiply(rates[1:], rates[:-1])), rtol=1e-5)
    assert not set(rates) & set(between)


def test_best_of_each_task_is_the_column_minimum() -> None:
    assert TABLE.best().tolist() == [1.0, 1.0, 1.0]


def test_best_settings_take_the_lowest_of_equal_rates() -> None:
    assert TABLE.best_settings() == (Setting(0.1), Setting(1.0), Setting(0.01))


def test_single_setting_has_the_least_mean_over_tasks() -> None:
    assert TABLE.single() == 1  # 2.0, 1.2, 2.07


def test_tasks_inside_excludes_both_ends_of_the_grid() -> None:
    assert TABLE.tasks_inside() == 1
