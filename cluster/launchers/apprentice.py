"""An outer-training from start to end in one call: one process, no Ray. For the paper's figures.

Deterministic, and resumed where its folder has its beginning (`cluster.launchers.circle`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.launchers.circle import Circle
from common.config import Config, digest
from common.data.dataset import open_dataset
from common.optimizer import initial_theta, make_family
from common.task import IMAGE_FAMILIES
from learner.history import read_history
from learner.learner import Surroundings
from learner.recovery import open_learner
from workers.figures.figure import Trained


def train(config: Config, keep: Sequence[int], folder: Path) -> Trained:
    """`workers.count` workers take turns, each with the newest parameters.

    Args:
      keep: versions whose theta to keep; 0 is the start.
      folder: of the run; made if it does not exist, gone on from if it does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    circle = begin(config, folder)
    while True:
        if circle.version in keep:
            np.save(folder / f"kept-{circle.version}.npy", circle.theta)
        if circle.stopped:
            break
        circle.advance()
    kept = {version: np.load(folder / f"kept-{version}.npy") for version in keep}
    return Trained(circle.theta, kept, read_history(folder))


def begin(config: Config, folder: Path) -> Circle:
    """The workers and the learner of the run in `folder`, where it stands."""
    dataset = open_dataset(config.dataset) if config.task.family in IMAGE_FAMILIES else None
    identity, segments = digest(config, dataset.fingerprint if dataset else ""), make_family(config.optimizer).segments
    circle = Circle(config)
    circle.join(
        *open_learner(folder, config, identity, initial_theta(config), segments, Surroundings(beside=circle.snapshot))
    )
    return circle
