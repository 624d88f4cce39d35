"""The `exchange` call over Ray: to the learner of the run, or to the aggregator of this node."""

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.actors.exchange_client import Unavailable
from cluster.monitoring.targets import FLEET, LEARNER
from common.errors import UserError
from common.exchange import Exchange

REPLY_TIMEOUT_S = 60.0  # an exchange without a reply for this long is retried


def find_learner() -> Any:
    """Returns the learner's handle. Raises ValueError when there is no learner now."""
    return ray.get_actor(LEARNER)


def find_aggregator() -> Any:
    """Returns the handle of this node's aggregator, which the fleet creates on demand."""
    node = ray.get_runtime_context().get_node_id()
    return ray.get(ray.get_actor(FLEET).aggregator.remote(node), timeout=REPLY_TIMEOUT_S)


def exchange_with(find: Callable[[], Any]) -> Exchange:
    """Returns one attempt of an exchange with the actor that `find` finds; after a failure it is looked up again."""
    handle: Any = None

    def call(payload: bytes | None, epoch: int, version: int) -> bytes:
        nonlocal handle
        try:
            handle = handle or find()
            reply: bytes = ray.get(handle.exchange.remote(payload, epoch, version), timeout=REPLY_TIMEOUT_S)
            return reply
        except RayTaskError as error:
            if not isinstance(error.cause, UserError):
                raise
            raise Unavailable(str(error.cause)) from None  # the learner cannot open its run now, but may soon
        except (RayError, ValueError) as error:
            handle = None
            raise Unavailable(str(error)) from None

    return call
