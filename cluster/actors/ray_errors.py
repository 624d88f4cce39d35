"""Calls of Ray actors' methods that raise the UserError of the actor instead of Ray's wrapper around it.

Ray is imported by the functions: its settings must be applied first (`ray_session.apply_settings`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from common.errors import UserError, last_line

GENERIC = (
    40  # characters: a shorter first sentence says only what was being done, "Failed to set up runtime environment"
)


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


def summary(error: BaseException) -> str:
    """The first sentence of what Ray says; its messages go on with advice about Ray's own interfaces."""
    text = " ".join(str(error).split()) or type(error).__name__
    first, _, rest = text.partition(". ")
    if len(first) < GENERIC:
        first = f"{first}. {rest.partition('. ')[0]}"
    return first.rstrip(".: ")


@contextmanager
def explained() -> Iterator[None]:
    """Raises what Ray raises in the block as UserError. An exception of our own code in an actor stays as it is."""
    from ray import exceptions

    try:
        yield
    except exceptions.RayTaskError:
        raise
    except exceptions.RayError as error:
        raise UserError(f"Ray reports: {summary(error)} ({type(error).__name__}){_advice(error)}") from error


def _advice(error: Exception) -> str:
    from ray import exceptions

    advice: dict[type[Exception], str] = {
        exceptions.RuntimeEnvSetupError: "the files next to your task family could not be copied to a node; see its log in "
        "/tmp/ray/session_latest/logs",
        exceptions.AuthenticationError: "set RAY_AUTH_TOKEN_PATH to the token of the cluster",
        exceptions.ActorUnschedulableError: "no node of the cluster has the resources: see `ray status`",
        exceptions.NodeDiedError: "a node was lost; repeat the command, with --resume where a run was starting",
        exceptions.RayActorError: "an actor of the run was lost; see its state with `outertrain status`",
        exceptions.RpcError: "is the head of the cluster running? See `ray status`",
    }
    return next((f": {text}" for kind, text in advice.items() if isinstance(error, kind)), "")


def await_ready(call: Callable[..., Any], what: str) -> None:
    """Waits for the first reply of an actor. Raises UserError when the actor cannot start."""
    from ray.exceptions import RayActorError

    try:
        unwrap(call)
    except RayActorError as error:
        raise UserError(
            f"the {what} cannot start: {last_line(str(error))} (train --in-process shows the whole traceback)"
        ) from None
