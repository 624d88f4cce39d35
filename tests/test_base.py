"""What all actors share: the constructor of a restarted actor that fails is retried, the first one's error is reported."""

import os
from types import SimpleNamespace

import pytest
from helpers.ray_environment import ray

from cluster.actors import base
from cluster.actors.base import retried_by_ray


class Exited(BaseException):
    """Instead of the end of the process."""


@pytest.mark.parametrize("restarted, error", [(False, ValueError), (True, Exited)])
def test_retried_by_ray_exits_only_in_a_restarted_actor(
    restarted: bool, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exit_process(code: int) -> None:
        assert code == 1
        raise Exited

    context = SimpleNamespace(was_current_actor_reconstructed=restarted)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(os, "_exit", exit_process)
    monkeypatch.setattr(base, "RESTART_DELAY_S", 0.0)
    with pytest.raises(error), retried_by_ray():
        raise ValueError("the storage is unavailable")
