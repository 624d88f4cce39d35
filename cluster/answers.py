"""What Ray actors answer: the error of a method as it was raised there, the reason of a failure in one line."""

from collections.abc import Callable
from typing import Any

from common.errors import UserError


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


def await_ready(learner: Any) -> None:
    """Raises UserError when the learner cannot work."""
    from ray.exceptions import RayActorError

    try:
        unwrap(learner.ready.remote)
    except RayActorError as error:
        raise UserError(
            f"the learner cannot start: {last_line(str(error))} (train --in-process shows the whole traceback)"
        ) from None


def last_line(traceback: str) -> str:
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
