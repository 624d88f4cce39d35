"""The worker's road to the learner: the same payload until it is answered."""

from threading import Event

import pytest

from cluster.actors.exchange_client import Connection, Left, Unreachable


def test_the_same_payload_is_sent_until_it_is_answered() -> None:
    calls = []

    def call(payload: bytes | None, epoch: int, version: int) -> bytes:
        calls.append((payload, epoch, version))
        if len(calls) < 4:
            raise Unreachable
        return b"reply"

    assert Connection(call, Event(), pause=0.001)(b"sample", 2, 7) == b"reply"
    assert calls == [(b"sample", 2, 7)] * 4


def test_pauses_double_up_to_the_longest() -> None:
    waited = []

    class Watched(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return len(waited) == 6

    def call(*_: object) -> bytes:
        raise Unreachable

    with pytest.raises(Left):
        Connection(call, Watched(), pause=1.0, longest_pause=8.0)(None, 0, 0)
    for pause, most in zip(waited, (1, 2, 4, 8, 8, 8), strict=True):
        assert most / 2 <= pause <= most


def test_where_a_repetition_might_count_twice_the_sample_is_given_up() -> None:
    calls = []

    def call(payload: bytes | None, epoch: int, version: int) -> bytes:
        calls.append(payload)
        if len(calls) < 3:
            raise Unreachable
        return b"reply"

    assert Connection(call, Event(), repeat=False, pause=0.001)(b"sample", 0, 0) == b"reply"
    assert calls == [b"sample", None, None]
