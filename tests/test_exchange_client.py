"""The client of an exchange: the same payload until a reply arrives, with growing pauses."""

from threading import Event

import pytest

from cluster.actors.exchange_client import ExchangeClient, ShuttingDown, Unavailable


def test_client_without_reply_sends_the_same_payload_again() -> None:
    calls = []

    def call(payload: bytes | None, epoch: int, version: int) -> bytes:
        calls.append((payload, epoch, version))
        if len(calls) < 4:
            raise Unavailable
        return b"reply"

    assert ExchangeClient(call, Event(), pause=0.001)(b"sample", 2, 7) == b"reply"
    assert calls == [(b"sample", 2, 7)] * 4


def test_client_pauses_double_up_to_the_longest() -> None:
    waited = []

    class RecordingEvent(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return len(waited) == 6

    def call(*_: object) -> bytes:
        raise Unavailable

    with pytest.raises(ShuttingDown):
        ExchangeClient(call, RecordingEvent(), pause=1.0, longest_pause=8.0)(None, 0, 0)
    for pause, limit in zip(waited, (1, 2, 4, 8, 8, 8), strict=True):
        assert limit / 2 <= pause <= limit


def test_client_without_resend_drops_a_sample_after_a_failure() -> None:
    calls = []

    def call(payload: bytes | None, epoch: int, version: int) -> bytes:
        calls.append(payload)
        if len(calls) < 3:
            raise Unavailable
        return b"reply"

    assert ExchangeClient(call, Event(), resend=False, pause=0.001)(b"sample", 0, 0) == b"reply"
    assert calls == [b"sample", None, None]
