"""The hand-designed optimizers that a learned one is compared with, and the rates they are tried at (section 4.4)."""

from math import log

import numpy as np

from common import configfile
from common.config import EvaluationConfig
from common.optimizer import Family, make_family

TUNED = ("adam", "rmsprop", "sgd")  # by a grid over the learning rate
FINE = ("adam",)  # also tried on the grid twice as fine
MOMENTUM = 0.9  # of sgd
TIMED_RATE = 0.001  # any that does not diverge: a step takes as long at every rate


def family(name: str) -> Family:
    return make_family(configfile.from_dict({"optimizer": {"family": name}}).optimizer)


def theta(name: str, rate: float) -> np.ndarray:
    """The parameters [P] float32 of one baseline at one learning rate."""
    return np.array([rate, MOMENTUM] if name == "sgd" else [log(rate)], np.float32)


def rates(config: EvaluationConfig) -> list[float]:
    """The grid: `rate_count` learning rates, equally spaced in their logarithm."""
    return _geometric(config, config.rate_count)


def rates_between(config: EvaluationConfig) -> list[float]:
    """What the grid twice as fine has beyond the grid: the geometric means of neighbours."""
    return _geometric(config, 2 * config.rate_count - 1)[1::2]


def _geometric(config: EvaluationConfig, count: int) -> list[float]:
    return [float(f"{rate:.6g}") for rate in np.geomspace(config.rate_low, config.rate_high, count)]
