"""The runs of a cluster, as far as their actors reply. A real cluster is asked in tests/test_evaluate_cluster.py."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import exceptions

from cluster.launchers import ray_cluster, remote_runs
from common.errors import UserError


class Actor:
    """An actor whose calls give `reply`, which is raised if it is an exception."""

    def __init__(self, reply: Any):
        self.log = self.describe = SimpleNamespace(remote=lambda *arguments: reply)


def failed(cause: Exception) -> exceptions.RayTaskError:
    return exceptions.RayTaskError("describe", "traceback", cause)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple]:
    """The actors of each run."""
    runs: dict[str, tuple] = {}

    def get(reply: Any, timeout: float) -> Any:
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(ray_cluster, "runs", lambda: list(runs))
    monkeypatch.setattr(ray_cluster, "find", lambda run: ray_cluster.Handles(*runs.get(run, (None, None))))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda calls, num_returns, timeout: (calls, []))
    return runs


def test_log_comes_from_the_first_actor_that_replies(cluster: dict[str, tuple]) -> None:
    cluster["a"] = (Actor(exceptions.GetTimeoutError("late")), Actor("text\n"))
    assert remote_runs.log("a", 5) == "text\n"


def test_log_of_a_run_elsewhere_is_a_user_error(cluster: dict[str, tuple]) -> None:
    with pytest.raises(UserError, match="not on this cluster"):
        remote_runs.log("b", 5)


def test_statuses_one_unreadable_run_hides_no_other(cluster: dict[str, tuple]) -> None:
    cluster["dead"] = (Actor(exceptions.GetTimeoutError("late")), None)
    cluster["full"] = (None, Actor(failed(UserError("its history is corrupt"))))
    cluster["good"] = (Actor("status"), Actor("status"))
    found = remote_runs.statuses()
    assert found["good"] == "status"
    assert "do not reply within 10 s" in found["dead"] and "its history is corrupt" in found["full"]


def test_statuses_a_fault_of_ours_keeps_its_traceback(cluster: dict[str, tuple]) -> None:
    cluster["a"] = (Actor(failed(KeyError("bug"))), None)
    with pytest.raises(exceptions.RayTaskError):
        remote_runs.statuses()
