"""Tuning of a baseline: the grid of its settings, and the best of them by a table of losses.

The grid of a strong baseline crosses learning rate, weight decay and schedule. Poor settings of it are rejected by
successive halving: all run on the first tasks, the best of them continue on more.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Self

import numpy as np

from common.config import EvaluationConfig
from common.config.system import STRONG

TUNED = ("adam", "rmsprop", "sgd")  # baselines that are tuned by a grid over the learning rate
FINE = ("adam",)  # those that also get the grid twice as fine; none of it is cut short, for the best may end late
CONSTANT, COSINE, WARM_UP = "constant", "cosine", "warm-up"  # schedules of the learning rate


class Setting(NamedTuple):
    """The hyper-parameters of an optimizer."""

    rate: float | None  # learning rate of a baseline that is tuned by it
    theta_sha256: str | None = None  # digest of theta, of every other optimizer
    decay: float = 0.0  # decoupled weight decay
    schedule: str = CONSTANT

    @property
    def text(self) -> str:
        """In words, such as "0.1, decay 0.01, cosine"; "" for a theta."""
        parts = [] if self.rate is None else [f"{self.rate:.2g}"]
        parts += [f"decay {self.decay:g}"] if self.decay else []
        return ", ".join(parts + ([self.schedule] if self.schedule != CONSTANT else []))


class Rung(NamedTuple):
    """A stage of successive halving."""

    tasks: int  # of the evaluation, that the settings of this rung have run at its end
    keep: float  # fraction of its settings that continue, by each of the losses


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
        """How many tasks have their best learning rate inside the grid, at neither of its ends."""
        rates = np.array([setting.rate or 0.0 for setting in self.settings])
        best = rates[self.losses.argmin(axis=0)]
        return int(((best > rates.min()) & (best < rates.max())).sum())


def grid_rates(config: EvaluationConfig) -> list[float]:
    """The grid: `rate_count` learning rates, equally spaced in their logarithm."""
    return _geometric(config, config.rate_count)


def grid(config: EvaluationConfig, name: str) -> list[Setting]:
    """All settings of a baseline."""
    rates = grid_rates(config)
    if name not in STRONG:
        return [Setting(rate) for rate in rates]
    schedules = (WARM_UP,) if name == "schedule_free_adamw" else (CONSTANT, COSINE)
    return [Setting(rate, None, *rest) for rate in rates for rest in product(config.weight_decays, schedules)]


def all_settings(config: EvaluationConfig, name: str) -> list[Setting]:
    """Those of the grid and, for `FINE`, the rates of the grid twice as fine."""
    between = rates_between(config) if name in FINE else []
    return grid(config, name) + [Setting(rate) for rate in between]


def rungs(config: EvaluationConfig, name: str) -> list[Rung]:
    """The rungs of a baseline; a single one where nothing is rejected."""
    whole = Rung(config.tasks, 1.0)
    if name not in STRONG or not config.rejection:
        return [whole]
    early = [Rung(config.tasks // 5, 0.25), Rung(config.tasks // 2, 0.5)]
    return [*(rung for rung in early if rung.tasks > 0), whole]


def survivors(tables: Sequence[LossTable], keep: float) -> set[Setting]:
    """The settings that continue: by each table, the best fraction by the mean, and the best one of every task.

    Args:
      tables: losses of the same settings on the tasks so far.
    """
    alive: set[Setting] = set()
    for table in tables:
        count = max(1, round(keep * len(table.settings)))
        order = np.argsort(table.losses.mean(axis=1), kind="stable")[:count]
        alive |= {table.settings[i] for i in order} | set(table.best_settings())
    return alive


def rates_between(config: EvaluationConfig) -> list[float]:
    """The rates that the grid twice as fine adds: the geometric means of neighbours."""
    return _geometric(config, 2 * config.rate_count - 1)[1::2]


def _geometric(config: EvaluationConfig, count: int) -> list[float]:
    return [float(f"{rate:.6g}") for rate in np.geomspace(config.rate_low, config.rate_high, count)]
