"""What cannot be opened now: the reason for whoever asks, and another attempt after a while."""

import pytest

from cluster.actors.opening import RETRY_SECONDS, Opening
from common.errors import UserError


class Door:
    """Opens at the third attempt, on a clock of its own."""

    def __init__(self) -> None:
        self.now, self.attempts = 0.0, 0

    def open(self) -> str:
        self.attempts += 1
        if self.attempts < 3:
            raise UserError(f"refused {self.attempts}")
        return "open"


def test_it_is_tried_again_at_most_every_so_often_until_it_opens() -> None:
    door = Door()
    opening = Opening(door.open, lambda: door.now)
    assert opening.made() is None and door.attempts == 1
    for now, reason in ((0.0, 1), (RETRY_SECONDS - 0.1, 1), (RETRY_SECONDS, 2), (2 * RETRY_SECONDS - 0.1, 2)):
        door.now = now
        with pytest.raises(UserError, match=f"refused {reason}"):
            opening.get()
    door.now = 2 * RETRY_SECONDS
    assert opening.get() == "open" == opening.made()
    assert opening.get() == "open" and door.attempts == 3


def test_only_what_a_person_can_mend_is_tried_again() -> None:
    def broken() -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        Opening(broken)
