"""The interfaces of a host: where a run is trained, or where jobs are computed. A host is a context manager."""

from typing import Protocol, Self

from cluster.jobs.job import Pool
from cluster.monitoring.run_status import RunStatus
from common.errors import UserError
from learner.status import LearnerStatus


class JobHost(Protocol):
    """Computes jobs."""

    def pool(self) -> Pool: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class RunHost(JobHost, Protocol):
    """Trains a run, and computes jobs with lower priority."""

    def advance(self) -> bool:
        """Trains for a moment; False when all updates are done.

        Raises:
          UserError: the run cannot continue, because all workers failed or another learner has taken over.
        """
        ...

    def status(self) -> RunStatus: ...


def raise_if_superseded(learner: LearnerStatus) -> None:
    """Raises UserError when another learner has taken over the run."""
    if learner.superseded:
        raise UserError(
            "another learner has taken over this run, so this one has stopped: `outertrain watch RUN` shows that one"
        )


def raise_if_in_memory_only(run: str, status: LearnerStatus | None) -> None:
    """Raises UserError when the newest version of a run that is to be stopped is not on disk."""
    if status is not None and not status.superseded and status.durable_version < status.version:
        raise UserError(
            f"version {status.version} of {run!r} is in memory only, version {status.durable_version} is on disk "
            f"({status.checkpoint_error}): free disk space and repeat the command, or lose it with --now"
        )
