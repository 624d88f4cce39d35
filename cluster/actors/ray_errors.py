"""What Ray actors answer: the error of a method as it was raised there, the reason of a failure in one line."""

from collections.abc import Callable
from typing import Any

from common.errors import UserError, last_line


def unwrap(call: Callable[..., Any], *arguments: Any) -> Any:
    """The answer of an actor's method. Raises the UserError that it raised, as it was raised there."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(call(*arguments))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def await_ready(call: Callable[..., Any], what: str) -> None:
    """Waits for the first answer of an actor. Raises UserError when it cannot work."""
    from ray.exceptions import RayActorError

    try:
        unwrap(call)
    except RayActorError as error:
        raise UserError(
            f"the {what} cannot start: {last_line(str(error))} (train --in-process shows the whole traceback)"
        ) from None


def raise_if_hopeless(fleet: dict[str, Any]) -> None:
    """Raises UserError when every worker was given up."""
    if fleet["target"] and fleet.get("given_up", 0) >= fleet["target"]:
        raise UserError(f"every worker failed again and again, the last one so: {last_line(fleet['last_failure'])}")


def raise_if_superseded(learner: dict[str, Any]) -> None:
    """Raises UserError when another learner has taken over the run."""
    if learner.get("superseded"):
        raise UserError(
            "another learner has taken over this run, so this one has stopped: `outertrain watch RUN` follows that one"
        )
