"""Workers around one learner in one process, taking turns. Deterministic: the same seed, the same theta, bit for bit,
resumed or not.

Each checkpoint also holds every trajectory and whose turn is next. A worker has the newest parameters before each
sample, so nothing that it remembers of them matters.
"""

from collections.abc import Mapping

import numpy as np

from common.config import Config
from learner.learner import Learner
from workers.worker import Worker

TURN = "turn"


class Circle:
    """`workers.count` workers. The learner is opened with `snapshot` as what to keep beside its state, then joins."""

    def __init__(self, config: Config):
        self.stopped = False
        self._config = config
        self._turn = 0
        self._workers: list[Worker] = []

    def join(self, learner: Learner, kept: Mapping[str, bytes]) -> None:
        """Makes the workers, each of which goes on where it was when `kept` was kept."""
        count = self._config.workers.count
        self._turn = int(kept.get(TURN, b"0")) % count
        self._workers = [Worker(self._config, f"w{k}", learner.exchange) for k in range(count)]
        for worker in self._workers:
            if worker.uid in kept:
                worker.restore(kept[worker.uid])
        self.stopped = self._next.fetch().stop

    def snapshot(self) -> dict[str, bytes]:
        """Called while a worker's exchange is under way: its sample is taken, the next worker's turn has come."""
        return {TURN: str(self._turn).encode(), **{worker.uid: worker.snapshot() for worker in self._workers}}

    def advance(self) -> None:
        """One sample by the worker whose turn it is, and the newest parameters for the next one."""
        worker = self._next
        self._turn = (self._turn + 1) % len(self._workers)
        worker.step()
        self.stopped = self._next.fetch().stop

    @property
    def _next(self) -> Worker:
        return self._workers[self._turn]

    @property
    def theta(self) -> np.ndarray:
        """[P], the newest."""
        theta = self._next.theta
        assert theta is not None
        return theta

    @property
    def version(self) -> int:
        return self._next.version
