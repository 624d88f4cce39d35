import errno
import logging
import os

import numpy as np
import pytest
from helpers.learner import DIGEST, SEGMENTS, THETA, ask, config, feed, run_directory, start

from common import checkpoint, files
from common.errors import UserError
from common.messages import Verdict, decode_theta
from learner import checkpoints, lineage
from learner.checkpoints import latest_checkpoint, load_theta, path_of, positions
from learner.history import read_history
from learner.lineage import Position
from learner.recovery import open_learner


def patched_save(monkeypatch):
    """No checkpoint can be written, until it is undone."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save", full)
    return monkeypatch


def listing(run):
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_open_new_run_is_durable_at_once(tmp_path):
    learner = start(tmp_path)
    reply = ask(learner)
    assert (reply.epoch, reply.version, reply.stop) == (1, 0, False)
    np.testing.assert_array_equal(decode_theta(reply.theta), THETA)
    np.testing.assert_array_equal(load_theta(latest_checkpoint(tmp_path)), THETA)
    assert positions(tmp_path / "checkpoints") == [(1, 0)]


def test_open_resumes_from_the_newest_checkpoint(tmp_path):
    feed(start(tmp_path), 10)
    before = load_theta(latest_checkpoint(tmp_path))
    reply = ask(start(tmp_path, theta=THETA + 1))
    assert (reply.epoch, reply.version) == (2, 2)
    np.testing.assert_array_equal(decode_theta(reply.theta), before)
    assert positions(tmp_path / "checkpoints")[-1] == (2, 2)


def test_epoch_without_an_update_is_part_of_the_lineage(tmp_path):
    feed(start(tmp_path), 8)
    for number in (2, 3):
        assert ask(start(tmp_path)).epoch == number
    assert list(lineage.lineage(tmp_path / "epochs").items()) == [(3, lineage.NO_END), (2, 2), (1, 2)]


def test_auxiliary_data_survives_epochs_without_updates(tmp_path):
    """The second epoch ends before its first update: its first checkpoint must still hold the auxiliary data of the first."""
    feed(start(tmp_path, auxiliary=lambda: {"w0": b"trajectory"}), 4)
    for _ in range(3):
        _, auxiliary = open_learner(tmp_path, config(), DIGEST, THETA, SEGMENTS)
        assert auxiliary == {"w0": b"trajectory"}


def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    settings = config(optimizer="adam")
    feed(start(tmp_path / "whole", settings), 16)
    feed(start(tmp_path / "parts", settings), 8)
    feed(start(tmp_path / "parts", settings), 8, first=8)
    whole, parts = (load_theta(latest_checkpoint(tmp_path / name)) for name in ("whole", "parts"))
    assert whole.tobytes() == parts.tobytes()


def test_steps_of_an_earlier_formats_checkpoint_are_summed(tmp_path):
    settings = config()
    feed(start(tmp_path, settings), 8)
    path = latest_checkpoint(tmp_path)
    record = checkpoint.load(path)
    total = record.pop("inner_steps")
    checkpoint.save(path, record)
    assert total > 0 and start(tmp_path, settings).inner_steps == total


def test_open_falls_back_to_the_last_intact_checkpoint(tmp_path, caplog):
    feed(start(tmp_path), 12)
    path = path_of(tmp_path / "checkpoints", Position(1, 3))
    path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert ask(start(tmp_path)).version == 2
    assert f"{path} is corrupt" in caplog.text
    assert lineage.lineage(tmp_path / "epochs")[1] == 2


def test_open_without_an_intact_checkpoint_is_an_error(tmp_path):
    feed(start(tmp_path), 4)
    for place in positions(tmp_path / "checkpoints"):
        path_of(tmp_path / "checkpoints", place).write_bytes(b"")
    before = listing(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint of .* is usable: restore one"):
        start(tmp_path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("change", ["digest", "size"])
def test_open_other_digest_or_size_is_a_user_error(tmp_path, change):
    feed(start(tmp_path), 4)
    before = listing(tmp_path)
    digest, theta = ("e" * 64, THETA) if change == "digest" else (DIGEST, THETA[:3])
    with pytest.raises(UserError, match="was started with another task, dataset, optimizer, estimator or curriculum"):
        open_learner(tmp_path, config(), digest, theta, SEGMENTS[: len(theta)])
    assert listing(tmp_path) == before


def test_open_bad_optimizer_writes_nothing(tmp_path):
    run_directory(tmp_path)
    with pytest.raises(UserError, match="did you mean adam"):
        start(tmp_path, config(optimizer="adamm"))
    assert listing(tmp_path) == {}
    assert os.listdir(tmp_path) == ["checkpoints"]


def test_open_changed_optimizer_initialises_its_state(tmp_path, caplog):
    feed(start(tmp_path, config(optimizer="adam")), 4)
    with caplog.at_level(logging.WARNING):
        learner = start(tmp_path, config(optimizer="sgd"))
    assert "outer.optimizer differs from that of the checkpoint" in caplog.text
    assert feed(learner, 4, first=4)[-1].version == 2


def test_open_optimizer_with_equal_shapes_initialises_its_state(tmp_path, caplog):
    """The trace of momentum has negative numbers, of which RMSProp would take roots."""
    feed(start(tmp_path, config(optimizer="sgd", options={"momentum": 0.9})), 12)
    with caplog.at_level(logging.WARNING):
        learner = start(tmp_path, config(optimizer="rmsprop"))
    assert "outer.optimizer differs from that of the checkpoint" in caplog.text
    feed(learner, 16, first=12)
    assert not any(update.refused for update in read_history(tmp_path))


def test_open_changed_schedule_begins_where_the_run_stands(tmp_path):
    """A cosine that is chosen after 15 of 20 updates ends near 0, as one from the start does."""
    constant = {"optimizer": "sign_sgd", "updates": 20, "learning_rate": 0.01}
    feed(start(tmp_path, config(**constant)), 60)
    feed(start(tmp_path, config(**constant, schedule="cosine")), 20, first=60)
    norms = [update.norms.update for update in read_history(tmp_path)]
    assert norms[19] < 0.05 * norms[14]


def test_checkpoint_not_written_at_first_is_that_of_its_update(tmp_path, monkeypatch):
    """Samples of the batch that was being collected are no part of it: they are not applied, so their names are free."""
    state = {"w0": b"before"}
    learner = start(tmp_path, auxiliary=lambda: dict(state))
    full = patched_save(monkeypatch)
    feed(learner, 4)
    full.undo()
    state["w0"] = b"after"
    feed(learner, 2, first=4)
    learner.persist()
    record = checkpoint.load(latest_checkpoint(tmp_path))
    assert (record["version"], record["beside"]) == (1, {"w0": b"before"})
    resumed = start(tmp_path)
    assert [reply.verdict for reply in feed(resumed, 2, first=4)] == [Verdict.accepted, Verdict.accepted]


@pytest.mark.parametrize(
    "code, reason",
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "permission denied: change its permissions"),
        (errno.EROFS, "the file system is read-only"),
    ],
)
def test_open_unwritable_storage_is_a_user_error(tmp_path, monkeypatch, code, reason):
    feed(start(tmp_path), 4)
    before = listing(tmp_path)

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lineage, "_create", refuse)
    with pytest.raises(UserError, match=rf"cannot write in .* \({os.strerror(code)}\): {reason}"):
        start(tmp_path)
    assert listing(tmp_path) == before


def test_open_full_disk_releases_its_epoch(tmp_path, monkeypatch):
    learner = start(tmp_path)
    feed(learner, 4)
    before = listing(tmp_path)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "_write", refuse)
        with pytest.raises(UserError, match="No space left"):
            start(tmp_path)
    assert listing(tmp_path) == before
    assert feed(learner, 4, first=4)[-1].version == 2
    assert ask(start(tmp_path)).version == 2


def test_old_checkpoints_are_deleted(tmp_path):
    feed(start(tmp_path, config(keep_checkpoints=3)), 40)
    assert [p.version for p in positions(tmp_path / "checkpoints")] == [8, 9, 10]
