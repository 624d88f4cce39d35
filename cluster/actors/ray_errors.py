"""Calls of Ray actors' methods that raise the UserError of the actor instead of Ray's wrapper around it.

Ray is imported by the functions: its settings must be applied first (`ray_session.apply_settings`).
"""

from collections.abc import Callable
from typing import Any

from common.errors import UserError, last_line


def unwrap(call: Callable[..., Any], *arguments: Any) -> Any:
    """Calls an actor's method and returns its value. Raises the UserError that the method raised, unwrapped."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(call(*arguments))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def await_ready(call: Callable[..., Any], what: str) -> None:
    """Waits for the first reply of an actor. Raises UserError when the actor cannot start."""
    from ray.exceptions import RayActorError

    try:
        unwrap(call)
    except RayActorError as error:
        raise UserError(
            f"the {what} cannot start: {last_line(str(error))} (train --in-process shows the whole traceback)"
        ) from None
