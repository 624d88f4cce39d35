"""Figures of the paper without trainings: a stand-in for `train`, and results with the fields that a test does not set."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import numpy as np

from common.config import Config
from common.optimizer import initial_theta
from helpers import run_files
from workers.figures.figure import Job, Trained

R = TypeVar("R", bound=Job)


def train(config: Config, keep: Sequence[int], *, at_steps: Sequence[int] = (), stale: bool = False) -> Trained:
    """As if trained: theta walks at random."""
    random, theta = np.random.default_rng(config.seed), initial_theta(config)
    kept = {v: (theta + 0.01 * v * random.normal(size=len(theta))).astype(np.float32) for v in keep}
    reached = dict.fromkeys(at_steps, theta)
    return Trained(kept[max(kept)], kept, run_files.history(config.outer.updates), reached)


def result(kind: type[R], **known: Any) -> R:
    """A result with these fields; the others are 0, which a test that reads them would notice."""
    missing = {f.name: 0 for f in fields(kind) if f.default is MISSING and f.name not in known}
    return kind(**{**missing, "label": "", **known})
