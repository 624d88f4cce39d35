"""The hand-designed optimizers that a learned one is compared with (paper section 4.4)."""

from math import log

import numpy as np

from common import configfile
from common.optimizer import Family, make_family

MOMENTUM = 0.9  # of sgd
TIMED_RATE = 0.001  # a step takes as long at every rate that does not diverge


def family(name: str) -> Family:
    return make_family(configfile.from_dict({"optimizer": {"family": name}}).optimizer)


def theta(name: str, rate: float) -> np.ndarray:
    """The parameters [P] float32 of a baseline at a learning rate."""
    return np.array([rate, MOMENTUM] if name == "sgd" else [log(rate)], np.float32)
