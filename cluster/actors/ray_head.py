"""Starts Ray on this machine with the processes that one command needs: no autoscaler, no dashboard, no log monitor.

Ray starts them whatever `ray.init` is told, and waits for the dashboard's server even where there is to be no dashboard.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

NOT_STARTED = ("start_monitor", "start_api_server", "start_log_monitor")  # methods of Ray's `Node`


@contextmanager
def reduced() -> Iterator[None]:
    """In this block `ray.init` starts fewer processes.

    What is replaced is private to Ray: a version of it that has other names starts all its processes.
    """
    import ray._private.utils
    from ray._private.node import Node

    with ExitStack() as stack:
        for name in NOT_STARTED:
            stack.enter_context(_replaced(Node, name, _nothing))
        # What Ray calls where the dashboard is not installed; its agent on the node then starts without a server.
        stack.enter_context(_replaced(ray._private.utils, "get_dashboard_dependency_error", _unused))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name, None)
    if before is None:
        yield
        return
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _nothing(node: Any, **_: Any) -> None:
    pass


def _unused() -> ImportError:
    return ImportError("the dashboard is not used")
