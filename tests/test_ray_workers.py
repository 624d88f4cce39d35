"""The ends of workers: whatever Ray raises for one, the fleet gets an event for that one and continues."""

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.ray_environment import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, RuntimeEnvSetupError

from cluster.actors.fleet import Ended
from cluster.actors.ray_workers import RayWorkers
from common.errors import UserError


def actor() -> Any:
    node, run = object(), object()
    return SimpleNamespace(node=SimpleNamespace(remote=lambda: node), run=SimpleNamespace(remote=lambda: run))


@pytest.mark.parametrize(
    "error, fatal",
    [
        (OutOfMemoryError("killed for memory"), False),
        (RuntimeEnvSetupError("no space for the working directory"), False),
        (RayActorError(error_msg="it died"), False),
        (RayTaskError("run", "ValueError: a bug", ValueError("a bug")), False),
        (RayTaskError("run", "UserError: no data", UserError("no data")), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_events_any_error_of_a_worker_is_an_end(error: Exception, fatal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "wait", lambda pending, **_: (pending, []))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", lambda _: None)
    workers = RayWorkers(lambda uid: actor())
    workers.launch("w0")
    [event] = workers.events()
    assert isinstance(event, Ended) and (event.uid, event.fatal) == ("w0", fatal) and event.reason
    assert workers.events() == []
