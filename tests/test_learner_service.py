"""The learner's process: what it publishes of a resumed run, and retries of an opening that is impossible for a while."""

import time
from pathlib import Path

import pytest
from helpers.in_process import compile_once, train

from cluster.actors.learner_service import RETRY_S, LearnerService, RetriedOpening
from cluster.monitoring.scrape import scrape
from cluster.monitoring.status import status_of, text
from common.configfile import from_dict
from common.errors import UserError
from learner.history import read_newest


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


ENDED = {
    "task": {"family": "quadratic", "inner_steps": 9, "options": {"dimension": 2}},
    "optimizer": {"family": "sgd", "learning_rate": 0.05},
    "curriculum": {"start": 2, "end": 2},
    "outer": {"updates": 100, "batch_samples": 2, "inner_steps": 20},
    "workers": {"count": 1},
}


def test_resumed_learner_publishes_where_the_run_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that its inner steps have ended: no update follows that would correct the first numbers."""
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    compile_once(monkeypatch)
    run = train("a", from_dict(ENDED))
    version = read_newest(run.path, 1)[-1].version
    service = LearnerService(run)
    try:
        found, status = scrape(run, "learner"), status_of(run)
    finally:
        service.close()
    assert 0 < version < 100 and service.learner.finished
    assert found.get("outertrain_version") == found.get("outertrain_target_updates") == version
    assert found.get("outertrain_checkpoint_version") == version
    assert found.get("outertrain_checkpoint_timestamp_seconds") == pytest.approx(time.time(), abs=60)
    assert status.epoch == 2 and f"checkpoint: version {version}, " in text(status)
    assert status.checkpoint_age is not None and status.checkpoint_age < 60
