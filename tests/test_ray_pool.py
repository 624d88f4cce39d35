"""The pool of a fleet's workers: it ends with a sentence when no worker will come."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from cluster.actors import ray_pool
from cluster.actors.ray_pool import RayPool
from cluster.monitoring.fleet_status import FleetStatus
from common.errors import UserError


def test_pool_all_workers_abandoned_raises_the_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    status = FleetStatus(target=2, abandoned=2, last_failure="Traceback\nUserError: no data here")
    fleet = SimpleNamespace(workers=SimpleNamespace(remote=lambda: {}), status=SimpleNamespace(remote=lambda: status))
    monkeypatch.setattr(ray_pool.ray, "get", lambda answer: answer)
    with pytest.raises(UserError, match=r"All workers failed repeatedly\. Last error: UserError: no data here"):
        RayPool(fleet).free_slots()


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
        RayPool(fleet).free_slots()

    fleet.workers.remote = lambda: RayActorError(error_msg="it was stopped")
    pool = RayPool(fleet)
    assert pool.free_slots() == 0  # the fleet may be restarting
    now[0] += ray_pool.FLEET_TIMEOUT_S + 1
    with pytest.raises(UserError, match="the fleet is gone"):
        pool.free_slots()
