"""Failpoints: named points at which a fault test stops the learner, killed as by SIGKILL or by an exception.

`OUTERTRAIN_FAILPOINT=name[:nth[:action]]` with action `kill` (the default) or `raise`, at the nth time that the point
is reached.
"""

import os
import signal
from collections.abc import Callable, Mapping

from common.errors import UserError
from common.files import no_failpoint

Failpoint = Callable[[str], None]  # called with the name of each point that is reached

POINTS = (
    "before_merge",
    "after_merge",
    "before_update",
    "after_update",
    "before_write",
    "after_write",
    "before_fsync",
    "after_fsync",
    "before_rename",
    "after_rename",
    "before_reply",
    "after_reply",
)


class FailpointReached(Exception):
    """Raised by a failpoint whose action is `raise`."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Failpoint:
    """The failpoint that the environment names, or one that does nothing. Raises UserError for an unknown one."""
    text = environment.get("OUTERTRAIN_FAILPOINT", "")
    if not text:
        return no_failpoint
    name, _, rest = text.partition(":")
    nth, _, action = rest.partition(":")
    nth, action = nth or "1", action or "kill"
    if name not in POINTS or not nth.isdigit() or action not in ("kill", "raise"):
        raise UserError(
            f"OUTERTRAIN_FAILPOINT={text!r} is not a failpoint: write name[:nth[:kill or raise]] with a name of {', '.join(POINTS)}"
        )
    return _Armed(name, int(nth), action)


class _Armed:
    def __init__(self, name: str, nth: int, action: str) -> None:
        self.name, self.left, self.action = name, nth, action

    def __call__(self, point: str) -> None:
        if point != self.name:
            return
        self.left -= 1
        if self.left == 0:
            if self.action == "raise":
                raise FailpointReached(point)
            os.kill(os.getpid(), signal.SIGKILL)
