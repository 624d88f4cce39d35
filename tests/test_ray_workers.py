"""The ends of workers: whatever Ray raises for one, the fleet gets an event for that one and continues."""

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.ray_environment import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, RuntimeEnvSetupError

from cluster.actors import ray_pool
from cluster.actors.fleet import Ended
from cluster.actors.ray_pool import RayPool
from cluster.actors.ray_workers import RayWorkers
from cluster.monitoring.fleet_status import FleetStatus
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


def test_pool_all_workers_abandoned_raises_the_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    status = FleetStatus(target=2, abandoned=2, last_failure="Traceback\nUserError: no data here")
    fleet = SimpleNamespace(workers=SimpleNamespace(remote=lambda: {}), status=SimpleNamespace(remote=lambda: status))
    monkeypatch.setattr(ray_pool.ray, "get", lambda answer: answer)
    with pytest.raises(UserError, match=r"All workers failed repeatedly\. Last error: UserError: no data here"):
        RayPool(fleet).room()


def test_pool_without_target_or_without_fleet_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run was stopped, or scaled to 0, during its evaluation."""

    def get(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    now = [0.0]
    monkeypatch.setattr(ray_pool.ray, "get", get)
    monkeypatch.setattr(ray_pool.time, "monotonic", lambda: now[0])
    nobody = FleetStatus(target=0)
    fleet = SimpleNamespace(workers=SimpleNamespace(remote=lambda: {}), status=SimpleNamespace(remote=lambda: nobody))
    with pytest.raises(UserError, match="the run has no workers: outertrain scale RUN N"):
        RayPool(fleet).room()

    fleet.workers.remote = lambda: RayActorError(error_msg="it was stopped")
    pool = RayPool(fleet)
    assert pool.room() == 0  # the fleet may be restarting
    now[0] += ray_pool.FLEET_TIMEOUT_S + 1
    with pytest.raises(UserError, match="the fleet is gone"):
        pool.room()
