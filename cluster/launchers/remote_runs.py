"""The runs of a Ray cluster as their own nodes see them: for `list --cluster` and `logs --cluster`."""

from typing import Any

from cluster.actors.ray_errors import summary
from cluster.launchers import ray_cluster
from cluster.monitoring.status import Status
from common.errors import UserError

REPLY_S = 10.0  # an actor that is being restarted does not reply


def statuses() -> dict[str, Status | str]:
    """The status of each run on the connected cluster, or the reason why it is not known."""
    calls = {run: _calls(run, "describe") for run in ray_cluster.runs()}
    _await([call for of_run in calls.values() for call in of_run])
    found: dict[str, Status | str] = {}
    for run, of_run in calls.items():
        try:
            found[run] = _first(run, of_run)
        except UserError as error:
            found[run] = str(error)
    return found


def log(run: str, lines: int) -> str:
    """The last lines of a run's log, from the node of its learner or of its fleet.

    Raises:
      UserError: the run is not on the connected cluster, or neither actor replies.
    """
    ray_cluster.handles(run)  # raises where there is none
    calls = _calls(run, "log", lines)
    _await(calls)
    return str(_first(run, calls))


def _calls(run: str, method: str, *arguments: Any) -> list[Any]:
    """The calls of a method of both actors, in flight."""
    actors = [actor for actor in ray_cluster.find(run) if actor is not None]
    return [getattr(actor, method).remote(*arguments) for actor in actors]


def _await(calls: list[Any]) -> None:
    import ray

    if calls:
        ray.wait(calls, num_returns=len(calls), timeout=REPLY_S)


def _first(run: str, calls: list[Any]) -> Any:
    """The value of the first call that has one. Raises UserError with the last reason when none has."""
    import ray
    from ray import exceptions

    reason = f"its actors do not reply within {REPLY_S:.0f} s: they are being started or restarted"
    for call in calls:
        try:
            return ray.get(call, timeout=0)
        except exceptions.GetTimeoutError:
            continue
        except exceptions.RayTaskError as error:
            if not isinstance(error.cause, UserError):
                raise
            reason = str(error.cause)
        except exceptions.RayError as error:
            reason = summary(error)
    raise UserError(f"the run {run!r} is on the cluster, but {reason}")
