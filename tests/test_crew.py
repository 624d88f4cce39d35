"""How workers end: whatever Ray says of one, the fleet hears of that one's end and goes on."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from helpers import ray_environment  # noqa: F401 - before Ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, RuntimeEnvSetupError

from cluster.actors import ray_pool
from cluster.actors.fleet import Ended
from cluster.actors.ray_pool import RayPool
from cluster.actors.ray_workers import Crew
from common.errors import UserError


def actor() -> Any:
    node, run = object(), object()
    return SimpleNamespace(node=SimpleNamespace(remote=lambda: node), run=SimpleNamespace(remote=lambda: run))


@pytest.mark.parametrize(
    "error, hopeless",
    [
        (OutOfMemoryError("killed for memory"), False),
        (RuntimeEnvSetupError("no room for the working directory"), False),
        (RayActorError(error_msg="it died"), False),
        (RayTaskError("run", "ValueError: a bug", ValueError("a bug")), False),
        (RayTaskError("run", "UserError: no data", UserError("no data")), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_worker_that_ends_in_any_way_is_one_that_has_ended(
    error: Exception, hopeless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "wait", lambda pending, **_: (pending, []))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", lambda _: None)
    crew = Crew(lambda uid: actor())
    crew.launch("w0")
    [event] = crew.events()
    assert isinstance(event, Ended) and (event.uid, event.hopeless) == ("w0", hopeless) and event.reason
    assert crew.events() == []


def test_a_job_ends_with_the_reason_when_every_worker_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    status = {"target": 2, "given_up": 2, "last_failure": "Traceback\nUserError: no data here"}
    fleet = SimpleNamespace(workers=SimpleNamespace(remote=lambda: {}), status=SimpleNamespace(remote=lambda: status))
    monkeypatch.setattr(ray_pool.ray, "get", lambda answer: answer)
    with pytest.raises(
        UserError, match="every worker failed again and again, the last one so: UserError: no data here"
    ):
        RayPool(fleet).room()


def test_a_job_ends_when_its_run_has_no_workers_any_more_or_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, or scaled to nothing, while it is being evaluated."""

    def get(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    now = [0.0]
    monkeypatch.setattr(ray_pool.ray, "get", get)
    monkeypatch.setattr(ray_pool.time, "monotonic", lambda: now[0])
    nobody = {"target": 0, "given_up": 0, "last_failure": None}
    fleet = SimpleNamespace(workers=SimpleNamespace(remote=lambda: {}), status=SimpleNamespace(remote=lambda: nobody))
    with pytest.raises(UserError, match="the run has no workers: outertrain scale RUN N"):
        RayPool(fleet).room()

    fleet.workers.remote = lambda: RayActorError(error_msg="it was stopped")
    pool = RayPool(fleet)
    assert pool.room() == 0  # it may be one that is being restarted
    now[0] += ray_pool.AWAY_SECONDS + 1
    with pytest.raises(UserError, match="the fleet is gone"):
        pool.room()
