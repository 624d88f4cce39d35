"""One attempt of an exchange over Ray: which errors mean that the peer is unavailable, and which are bugs."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.ray_environment import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayTaskError

from cluster.actors.exchange_client import Unavailable
from cluster.actors.ray_exchange import exchange_with
from common.errors import UserError


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The handles that were looked up; replies are the values or exceptions that `find` was given."""

    def get(reply: object, timeout: float) -> object:
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(ray, "get", get)
    return []


def finder(found: list[object], *replies: object) -> Callable[[], Any]:
    """Each lookup returns an actor; together the actors give these replies in order."""
    remaining = iter(replies)

    def find() -> Any:
        found.append(SimpleNamespace(exchange=SimpleNamespace(remote=lambda *_: next(remaining))))
        return found[-1]

    return find


def test_exchange_keeps_the_handle_while_replies_arrive(found: list[object]) -> None:
    exchange = exchange_with(finder(found, b"one", b"two"))
    assert [exchange(None, 0, 0), exchange(None, 0, 0)] == [b"one", b"two"] and len(found) == 1


@pytest.mark.parametrize("error", [ActorUnavailableError("away", None), GetTimeoutError("slow")])
def test_exchange_after_a_ray_error_looks_the_peer_up_again(found: list[object], error: Exception) -> None:
    exchange = exchange_with(finder(found, error, b"reply"))
    with pytest.raises(Unavailable):
        exchange(None, 0, 0)
    assert exchange(None, 0, 0) == b"reply" and len(found) == 2


def test_exchange_without_a_peer_is_unavailable() -> None:
    def find() -> Any:
        raise ValueError("no such actor")

    with pytest.raises(Unavailable, match="no such actor"):
        exchange_with(find)(None, 0, 0)


def test_exchange_user_error_of_the_learner_is_unavailable(found: list[object]) -> None:
    error = RayTaskError("exchange", "traceback", UserError("the disk is full"))
    with pytest.raises(Unavailable, match="the disk is full"):
        exchange_with(finder(found, error))(None, 0, 0)


def test_exchange_bug_of_the_learner_is_raised(found: list[object]) -> None:
    with pytest.raises(RayTaskError):
        exchange_with(finder(found, RayTaskError("exchange", "traceback", KeyError("a bug"))))(None, 0, 0)
