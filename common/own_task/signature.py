"""The parameters of the user's functions."""

import inspect
from collections.abc import Callable
from typing import Any

from common.errors import UserError


def parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """The parameters of a function; `name` says in errors what it is for.

    Raises:
      UserError: it is no function, or one of those written in C whose parameters Python does not know.
    """
    if not callable(function):
        raise UserError(f"{name} = {function!r} is not a function")
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:
        raise UserError(
            f"{name} = {function!r} does not say what its arguments are: wrap it in a function of your own"
        ) from None
