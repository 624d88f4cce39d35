"""Tuning of a baseline: the grid of its learning rates, and the best of its settings by a table of losses."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from common.config import EvaluationConfig

TUNED = ("adam", "rmsprop", "sgd")  # baselines that are tuned by a grid over the learning rate
FINE = ("adam",)  # those that also get the grid twice as fine


class Setting(NamedTuple):
    """The hyper-parameters of an optimizer."""

    rate: float | None  # learning rate of a baseline that is tuned by it
    theta_sha256: str | None = None  # digest of theta, of every other optimizer


class LossTable(NamedTuple):
    """Mean losses of one optimizer, at several settings in ascending order, on several tasks."""

    settings: tuple[Setting, ...]
    losses: np.ndarray  # [settings, tasks]

    @classmethod
    def of_rates(cls, rates: Sequence[float], losses: np.ndarray) -> Self:
        """Args: rates [settings], losses [settings, tasks]."""
        return cls(tuple(Setting(rate) for rate in rates), np.asarray(losses, dtype=float))

    def best(self) -> np.ndarray:
        """[tasks] the loss at the best setting of each task."""
        return np.asarray(self.losses.min(axis=0))

    def best_settings(self) -> tuple[Setting, ...]:
        """[tasks] the best setting of each task; of equals the lowest."""
        return tuple(self.settings[i] for i in self.losses.argmin(axis=0))

    def single(self) -> int:
        """Index of the setting with the least mean over the tasks."""
        return int(self.losses.mean(axis=1).argmin())

    def tasks_inside(self) -> int:
        """How many tasks have their best setting inside the grid, at neither of its ends."""
        best = self.losses.argmin(axis=0)
        return int(((best > 0) & (best < len(self.settings) - 1)).sum())


def grid_rates(config: EvaluationConfig) -> list[float]:
    """The grid: `rate_count` learning rates, equally spaced in their logarithm."""
    return _geometric(config, config.rate_count)


def rates_between(config: EvaluationConfig) -> list[float]:
    """The rates that the grid twice as fine adds: the geometric means of neighbours."""
    return _geometric(config, 2 * config.rate_count - 1)[1::2]


def _geometric(config: EvaluationConfig, count: int) -> list[float]:
    return [float(f"{rate:.6g}") for rate in np.geomspace(config.rate_low, config.rate_high, count)]
