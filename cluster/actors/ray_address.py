"""The cluster that a command connects to: its address, and whether its head answers.

`ray.init` waits about 13 minutes for a head that is gone, in code that no signal interrupts. So the head is asked first,
in a thread.
"""

import os
import socket
import threading
import time
from typing import Any

from cluster.actors.ray_errors import summary
from common.errors import UserError

CONNECT_S = 5.0  # for a TCP connection
ANSWER_S = 20.0  # for the first reply: Ray's own attempts take 5 s each
POLL_S = 0.1  # a signal that another thread receives does not interrupt a longer wait
START = "start one with `ray up` or `ray start --head`, set RAY_ADDRESS, or use `outertrain train`, which needs none"


def find_head() -> str:
    """Returns the address (host:port) of a head that answers: that of RAY_ADDRESS, or that of this machine's cluster.

    Raises:
      UserError: the address is of another kind, there is no cluster, or its head does not answer.
    """
    from ray._private import services

    named = os.environ.get("RAY_ADDRESS", "").strip() or "auto"
    scheme, separator, _ = named.partition("://")
    if separator:
        raise UserError(
            f"RAY_ADDRESS = {named} is an address for {'`ray job submit`' if scheme != 'ray' else 'Ray Client'}: on a node of "
            "the cluster set RAY_ADDRESS=auto; from elsewhere use `ray exec`, or `ray job submit -- outertrain ...`"
        )
    try:
        address = services.canonicalize_bootstrap_address(named)
    except ConnectionError as error:
        raise UserError(f"no Ray cluster answers on this machine ({summary(error)}): {START}") from None
    except (OSError, ValueError, RuntimeError) as error:  # Ray passes on what it finds: no such host, no port
        raise UserError(
            f"RAY_ADDRESS = {named!r} is not an address ({summary(error)}): give HOST:PORT or auto"
        ) from None
    if address is None:
        raise UserError(f"RAY_ADDRESS = {named!r} names no cluster: {START}")
    _check_connects(address)
    _check_answers(address)
    return address


def _check_connects(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise UserError(f"no head of a Ray cluster answers at {address} ({error}): {START}") from None


def _check_answers(address: str) -> None:
    """Raises UserError unless the head replies in time. Ctrl-C and SIGTERM end the waiting at once."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import RayError

    outcome: list[Any] = []

    def ask() -> None:
        try:
            outcome.append(GcsClient(address=address).cluster_id)
        except (RayError, RuntimeError, OSError, ValueError) as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    end = time.monotonic() + ANSWER_S
    while thread.is_alive() and time.monotonic() < end:
        thread.join(POLL_S)
    if not outcome:
        raise UserError(
            f"the program at {address} does not answer as the head of a Ray cluster: see `ray status`; {START}"
        )
    if isinstance(outcome[0], Exception):
        raise UserError(f"the head of the Ray cluster at {address} rejects the connection: {summary(outcome[0])}")
