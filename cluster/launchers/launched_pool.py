"""The jobs of figures on a Ray cluster: each outer-training is a launched run, everything else a Ray task with one core.

Implements `cluster.jobs.job.Pool` for the `paper` scale. Trainings are launched one after another, each with all the
workers and under the name of its job: it can be watched and scaled, and resumes when the command is repeated.
"""

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError

from cluster.actors.ray_errors import unwrap
from cluster.jobs.job import Ended, Job, Json
from cluster.launchers import ray_cluster
from cluster.launchers.host import raise_if_superseded
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.run_status import LearnerReport
from cluster.runs import directory
from cluster.runs.directory import RunDirectory
from common import runtime
from common.errors import UserError, last_line
from common.update_record import UpdateRecord
from learner import checkpoints
from learner.history import read_history
from workers.figures.figure import Trained, config_of

POINTS = 100  # kept checkpoints of a training, evenly spaced


class Finished(NamedTuple):
    """The outcome of a training, as it is sent to the task that evaluates it."""

    thetas: Mapping[int, np.ndarray]  # by version; at least the first and the last one
    history: list[UpdateRecord]

    def trained(self, keep: Sequence[int], at_steps: Sequence[int] = ()) -> Trained:
        """The outcome with theta at each version of `keep`, or at the last kept version before it; and at inner steps."""
        totals = np.cumsum([update.inner_steps for update in self.history])
        places = {steps: min(int(np.searchsorted(totals, steps)), len(totals) - 1) for steps in at_steps}
        reached = {steps: self._before(self.history[place].version) for steps, place in places.items()}
        last = self.thetas[max(self.thetas)]
        return Trained(last, {version: self._before(version) for version in keep}, self.history, reached)

    def _before(self, version: int) -> np.ndarray:
        return self.thetas[max(v for v in self.thetas if v <= version)]


class ClusterPool:
    """Needs a connection (`ray_cluster.connected`). On exit, the training in progress is stopped with a checkpoint."""

    def __init__(self, workers: int | None, say: Callable[[str], None]):
        """Args:
        workers: of each training; None: as its preset says.
        say: receives messages for the user.
        """
        self._workers, self._say = workers, say
        self._trainings: deque[Job] = deque()
        self._training: tuple[Job, RunDirectory] | None = None
        self._tasks: dict[Any, Job] = {}
        self._task = ray.remote(num_cpus=1, max_retries=0)(perform)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._training is not None:
            self._stop(self._training[1])

    def free_slots(self) -> int:
        return max(1, int(ray.cluster_resources().get("CPU", 0))) - len(self._tasks)

    def submit(self, job: Job) -> None:
        if job.spec["kind"] == "train":
            self._trainings.append(job)
        else:
            self._tasks[self._task.remote(job.spec, None)] = job

    def collect(self) -> list[Ended]:
        self._train()
        if not self._tasks:
            time.sleep(0.5)
            return []
        ready, _ = ray.wait(list(self._tasks), num_returns=1, timeout=0.5)
        return [self._ended(reference) for reference in ready]

    def _ended(self, reference: Any) -> Ended:
        job = self._tasks.pop(reference)
        try:
            return Ended(job, ray.get(reference))
        except RayError as error:
            return Ended(job, None, last_line(str(error)))

    def _train(self) -> None:
        """Runs one training at a time; when it is done, a task evaluates it and the next training begins."""
        if self._training is None and self._trainings:
            job = self._trainings.popleft()
            self._training = job, self._launch(job)
        if self._training is None or not finished(self._training[1]):
            return
        job, run = self._training
        self._stop(run)
        self._training = None
        self._tasks[self._task.remote(job.spec, read(run))] = job

    def _launch(self, job: Job) -> RunDirectory:
        name = job.name
        if not ray_cluster.running(name):
            command(*launching(job, self._workers, resume=name in directory.names()))
        self._say(f"training {name}; {directory.shell_command('watch', name)}")
        return directory.find(name)

    def _stop(self, run: RunDirectory) -> None:
        if ray_cluster.running(run.name):
            ray_cluster.stop(run.name, self._say)


def launching(job: Job, workers: int | None, *, resume: bool) -> list[str]:
    """The arguments of the command that launches or resumes the training of a job."""
    preset, *overrides = job.spec["settings"]
    every = max(1, config_of((preset, *overrides)).outer.updates // POINTS)
    overrides.append(f"outer.keep_every={every}")
    given = ["--resume"] if resume else [preset, *(f"--set={override}" for override in overrides)]
    scaled = [] if workers is None else [f"--workers={workers}"]
    return ["launch", "--name", job.name, *given, *scaled]


def command(*arguments: str) -> None:
    """Runs one of our commands in a process with its own connection. Raises UserError with its error message."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cluster.cli.main", *arguments], stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        raise UserError(last_line(done.stderr).removeprefix("outertrain: "))


def finished(run: RunDirectory) -> bool:
    """Whether a launched training is done. Raises UserError where it cannot go on by itself."""
    learner, fleet = ray_cluster.handles(run.name)
    if learner is None or fleet is None:
        raise UserError(f"{run.name} is incomplete on the cluster: outertrain stop {run.name}, then repeat the command")
    try:
        report: LearnerReport = unwrap(learner.report.remote)
        if not report.learner.finished:
            raise_if_superseded(report.learner)
            fleet_status: FleetStatus = unwrap(fleet.status.remote)
            fleet_status.raise_if_all_abandoned()
        return report.learner.finished
    except RayActorError:
        return False  # the learner or the fleet manager is being restarted


def read(run: RunDirectory) -> Finished:
    thetas = {version: checkpoints.load_theta(path) for version, path in checkpoints.versions(run.path)}
    return Finished(thetas, read_history(run.path))


def perform(spec: Json, finished: Finished | None) -> Json:
    """Ray task: returns the result of a job, given the outcome of its training if it has one."""
    runtime.prepare(pin=False)  # Ray keeps the process for other tasks, and a pinned one would hold its core
    from cluster.launchers.in_process import train_for_figure
    from workers.figures import catalogue

    if finished is None:  # nothing is launched for a job that trains in another way than a cluster
        with TemporaryDirectory() as folder:
            return catalogue.perform(spec, partial(train_for_figure, folder=Path(folder)))
    # A launched run has stale samples as they came, so there is nothing to ask for.
    launched = finished.trained
    return catalogue.perform(spec, lambda config, keep, *, at_steps=(), stale=False: launched(keep, at_steps))
