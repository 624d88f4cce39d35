"""What learner and fleet report about their run's directory, for commands on machines that cannot read it."""

import ray

from cluster.monitoring.status import Status, status_of
from cluster.runs.directory import RunDirectory
from common import files
from common.errors import UserError


class RunReader:
    """Methods of an actor on a node that has the run directory. The actor sets `_run`."""

    _run: RunDirectory

    @ray.method(concurrency_group="control")
    def describe(self) -> Status:
        """The status as `outertrain status` shows it on this node. Raises UserError when the files cannot be read."""
        try:
            return status_of(self._run)
        except (OSError, ValueError) as error:
            raise UserError(f"the run {self._run.name!r} cannot be read: {error}") from None

    @ray.method(concurrency_group="control")
    def log(self, lines: int) -> str:
        """The last lines of the run's log. Raises UserError when it cannot be read."""
        try:
            return self._run.log(lines)
        except OSError as error:
            raise UserError(f"the log of {self._run.name!r} cannot be read: {files.explain(error)}") from None
