"""An outer-training from start to end in one call: one process, no Ray, nothing left on disk. For the paper's figures."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.config import Config, digest
from common.dataset import open_dataset
from common.optimizer import make_family
from common.task import IMAGE_FAMILIES
from learner.history import read_history
from learner.start import open_learner
from workers.figures.figure import Trained
from workers.worker import Worker, theta_of


def train(config: Config, keep: Sequence[int] = ()) -> Trained:
    """Deterministic: `workers.count` workers take turns, each with the newest parameters.

    Args:
      keep: versions whose theta to keep; 0 is the start.
    """
    dataset = open_dataset(config.dataset) if config.task.family in IMAGE_FAMILIES else None
    identity = digest(config, dataset.fingerprint if dataset else "")
    with tempfile.TemporaryDirectory(prefix="outertrain-figure-") as folder:
        segments = make_family(config.optimizer).segments
        learner, _ = open_learner(Path(folder), config, identity, theta_of(config), segments)
        workers = [Worker(config, f"w{k}", learner.exchange) for k in range(config.workers.count)]
        kept: dict[int, np.ndarray] = {}
        while not _round(workers, keep, kept):
            pass
        worker = workers[0]
        worker.fetch()
        assert worker.theta is not None
        if worker.version in keep:
            kept[worker.version] = worker.theta
        return Trained(worker.theta, kept, read_history(Path(folder)))


def _round(workers: list[Worker], keep: Sequence[int], kept: dict[int, np.ndarray]) -> bool:
    """One sample of each worker; True when the learner wants no more."""
    for worker in workers:
        if worker.fetch().stop:
            return True
        assert worker.theta is not None
        if worker.version in keep:
            kept[worker.version] = worker.theta
        if worker.step().stop:
            return True
    return False
