"""An outer-training from start to end in one call: one process, no Ray. For the paper's figures.

Deterministic, and resumed where its folder has its beginning, as `cluster.inprocess` is.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.config import Config, digest
from common.dataset import open_dataset
from common.optimizer import make_family
from common.task import IMAGE_FAMILIES
from learner.history import read_history
from learner.learner import Surroundings
from learner.start import open_learner
from workers.figures.figure import Trained
from workers.worker import Worker, theta_of

TURN = "turn"


def train(config: Config, keep: Sequence[int], folder: Path) -> Trained:
    """`workers.count` workers take turns, each with the newest parameters.

    Args:
      keep: versions whose theta to keep; 0 is the start.
      folder: of the run; made if it does not exist, gone on from if it does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    circle = Circle(config, folder)
    while True:
        if circle.version in keep:
            np.save(folder / f"kept-{circle.version}.npy", circle.theta)
        if circle.stopped:
            break
        circle.advance()
    kept = {version: np.load(folder / f"kept-{version}.npy") for version in keep}
    return Trained(circle.theta, kept, read_history(folder))


class Circle:
    """Workers around one learner."""

    def __init__(self, config: Config, folder: Path):
        dataset = open_dataset(config.dataset) if config.task.family in IMAGE_FAMILIES else None
        identity, segments = (
            digest(config, dataset.fingerprint if dataset else ""),
            make_family(config.optimizer).segments,
        )
        self._workers: list[Worker] = []
        around = Surroundings(beside=self._snapshot)
        learner, self._beside = open_learner(folder, config, identity, theta_of(config), segments, around)
        self._turn = int(self._beside.get(TURN, b"0"))
        workers = [Worker(config, f"w{k}", learner.exchange) for k in range(config.workers.count)]
        for worker in workers:
            if worker.uid in self._beside:
                worker.restore(self._beside[worker.uid])
        self._workers = workers
        self.stopped = self._workers[self._turn].fetch().stop

    def _snapshot(self) -> dict[str, bytes]:
        """Called while a worker's exchange is under way: its sample is taken, the next worker's turn has come."""
        if not self._workers:
            return self._beside
        return {TURN: str(self._turn).encode(), **{worker.uid: worker.snapshot() for worker in self._workers}}

    @property
    def theta(self) -> np.ndarray:
        theta = self._workers[self._turn].theta
        assert theta is not None
        return theta

    @property
    def version(self) -> int:
        return self._workers[self._turn].version

    def advance(self) -> None:
        """One sample by the worker whose turn it is, and the newest parameters for the next one."""
        worker = self._workers[self._turn]
        self._turn = (self._turn + 1) % len(self._workers)
        worker.step()
        self.stopped = self._workers[self._turn].fetch().stop
