"""Opening a run that cannot be opened for a while: the reason for every caller, and a retry now and then."""

import pytest

from cluster.actors.learner_service import RETRY_S, RetriedOpening
from common.errors import UserError


class FakeStorage:
    """Opens at the third attempt; with its own clock."""

    def __init__(self) -> None:
        self.now, self.attempts = 0.0, 0

    def open(self) -> str:
        self.attempts += 1
        if self.attempts < 3:
            raise UserError(f"attempt {self.attempts} failed")
        return "open"


def test_opening_is_retried_at_most_every_retry_interval() -> None:
    storage = FakeStorage()
    opening = RetriedOpening(storage.open, lambda: storage.now)
    assert opening.opened is None and storage.attempts == 1
    for now, attempt in ((0.0, 1), (RETRY_S - 0.1, 1), (RETRY_S, 2), (2 * RETRY_S - 0.1, 2)):
        storage.now = now
        with pytest.raises(UserError, match=f"attempt {attempt} failed"):
            opening.get()
    storage.now = 2 * RETRY_S
    assert opening.get() == "open" == opening.opened
    assert opening.get() == "open" and storage.attempts == 3


def test_opening_other_exceptions_are_raised_at_once() -> None:
    def broken() -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        RetriedOpening(broken)
