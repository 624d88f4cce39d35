"""Runs and jobs in one process, without Ray: the same learner and the same workers, which take turns.

Deterministic: the same seed gives the same theta, bit for bit, however often the run was interrupted and resumed.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from cluster.actors.learner_service import LearnerService
from cluster.actors.worker_program import JobProgram
from cluster.jobs.job import InProcessPool, Pool
from cluster.launchers.host import raise_if_superseded
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.run_status import RunStatus
from cluster.runs.directory import RunDirectory
from common.config import Config, digest
from common.optimizer import initial_theta, make_family
from common.task import open_tasks
from learner.history import read_history
from learner.hooks import Hooks
from learner.learner import Learner
from learner.recovery import open_learner
from workers.figures.figure import Trained
from workers.worker import Worker, make_engine

TURN = "turn"  # key of the auxiliary state: index of the worker whose turn is next
HELD = ".held"  # suffix of a worker's key: the parameters that it holds


class RoundRobin:
    """`workers.count` workers around one learner, one sample each in turn.

    The learner is opened with `snapshot` as its auxiliary state, which each checkpoint keeps: every trajectory, and
    whose turn is next. Then `start` is called.

    Args:
      stale: a worker computes its sample with the parameters of its own last reply, as workers on a cluster do, so
        that samples are `workers.count` / `outer.batch_samples` updates old on average. By default it fetches the
        newest ones first, and they are not part of its state.
    """

    def __init__(self, config: Config, *, stale: bool = False):
        self.stopped = False  # the learner needs no more samples
        self._config, self._stale = config, stale
        self._turn = 0
        self._workers: list[Worker] = []

    def start(self, learner: Learner, snapshot: Mapping[str, bytes]) -> None:
        """Creates the workers and restores each from `snapshot`, which is empty for a new run."""
        count = self._config.workers.count
        self._turn = int(snapshot.get(TURN, b"0")) % count
        self._learner, engine = learner, make_engine(self._config)
        self._workers = [Worker(self._config, f"w{k}", learner.exchange, engine) for k in range(count)]
        for worker in self._workers:
            if worker.uid in snapshot:
                worker.restore(snapshot[worker.uid])
            if worker.uid + HELD in snapshot:
                worker.hold(snapshot[worker.uid + HELD])
            elif self._stale:
                worker.fetch()
        self.stopped = self._newest.fetch().stop

    def snapshot(self) -> dict[str, bytes]:
        """Called by the learner during a worker's exchange: the turn is already the next worker's.

        What that worker holds is left out. Its reply, which is still to come, has the newest parameters.
        """
        state = {TURN: str(self._turn).encode(), **{worker.uid: worker.snapshot() for worker in self._workers}}
        others = [worker for worker in self._workers if self._stale and worker is not self._last]
        return state | {worker.uid + HELD: worker.held() for worker in others}

    def advance(self) -> None:
        """Computes and exchanges one sample; then, unless `stale`, fetches the parameters for the next worker."""
        worker = self._next
        self._turn = (self._turn + 1) % len(self._workers)
        reply = worker.step()
        self.stopped = (reply if self._stale else self._next.fetch()).stop

    @property
    def _next(self) -> Worker:
        return self._workers[self._turn]

    @property
    def _last(self) -> Worker:
        """The worker of the last exchange of a sample."""
        return self._workers[self._turn - 1]

    @property
    def _newest(self) -> Worker:
        """The worker that holds the newest version between calls of `advance`."""
        return self._last if self._stale else self._next

    @property
    def theta(self) -> np.ndarray:
        """[P] float32, of the newest version."""
        theta = self._newest.theta
        assert theta is not None
        return theta

    @property
    def version(self) -> int:
        return self._newest.version

    @property
    def inner_steps(self) -> int:
        """Of all updates so far."""
        return self._learner.inner_steps


class InProcessJobs:
    """`cluster.launchers.host.JobHost`: jobs without training."""

    def __init__(self, config: Config):
        self._config = config
        self._program = JobProgram(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def pool(self) -> Pool:
        return InProcessPool(self._program.perform)


class InProcessRun(InProcessJobs):
    """`cluster.launchers.host.RunHost`: one `advance` is one sample."""

    def __init__(self, run: RunDirectory, config: Config):
        """Raises UserError when the run cannot be opened (`LearnerService`)."""
        super().__init__(config)
        self._round_robin = RoundRobin(config)
        with ExitStack() as stack:
            self._log = run.start_log()
            stack.callback(self._log.close)
            self._service = LearnerService(run, self._round_robin.snapshot)
            stack.callback(self._service.close)
            self._round_robin.start(self._service.learner, self._service.auxiliary)
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def advance(self) -> bool:
        if not self._round_robin.stopped:
            self._round_robin.advance()
        if self._round_robin.stopped:
            raise_if_superseded(self._service.learner.status())
        return not self._round_robin.stopped

    def status(self) -> RunStatus:
        count, report = self._config.workers.count, self._service.report()
        return RunStatus(report.learner, report.records, FleetStatus(target=count, running=count))


def train_for_figure(
    config: Config, keep: Sequence[int], *, folder: Path, at_steps: Sequence[int] = (), stale: bool = False
) -> Trained:
    """Trains one run from start to end, for a figure of the paper; resumes what `folder` holds.

    Args:
      keep: versions whose theta is returned; 0 is the initial one.
      at_steps: numbers of inner steps, as for `workers.figures.figure.Train`.
      folder: of the run, created if it does not exist. It holds no configuration and no metrics endpoint.
      stale: as for `RoundRobin`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = open_training(config, folder, stale=stale)
    while True:
        if training.version in keep:
            np.save(folder / f"kept-{training.version}.npy", training.theta)
        for steps in at_steps:
            if training.inner_steps >= steps and not (path := folder / f"reached-{steps}.npy").exists():
                np.save(path, training.theta)
        if training.stopped:
            break
        training.advance()
    kept = {version: np.load(folder / f"kept-{version}.npy") for version in keep}
    paths = {steps: folder / f"reached-{steps}.npy" for steps in at_steps}
    reached = {steps: np.load(path) if path.exists() else training.theta for steps, path in paths.items()}
    return Trained(training.theta, kept, read_history(folder), reached)


def open_training(config: Config, folder: Path, *, stale: bool = False) -> RoundRobin:
    """The learner and the workers of the run in `folder`, at its newest checkpoint."""
    identity, segments = digest(config, open_tasks(config).fingerprint), make_family(config.optimizer).segments
    training = RoundRobin(config, stale=stale)
    hooks = Hooks(auxiliary=training.snapshot)
    training.start(*open_learner(folder, config, identity, initial_theta(config), segments, hooks))
    return training
