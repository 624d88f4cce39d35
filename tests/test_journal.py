import errno

import numpy as np
import pytest
from helpers.learner import SEGMENTS, THETA, config, feed, start

from common import checkpoint
from common.errors import UserError
from learner import journal
from learner.checkpoints import latest_checkpoint, load_theta
from learner.journal import Inconsistent, Journal, replay
from learner.lineage import Position, claim

JOURNALED = config(journal=True, optimizer="adam")


def theta_of(run):
    return load_theta(latest_checkpoint(run)).tobytes()


def test_replay_gives_theta_bit_for_bit(tmp_path):
    feed(start(tmp_path, JOURNALED), 12)
    replayed = replay(tmp_path)
    assert replayed.state.version == 3
    assert replayed.state.theta.tobytes() == theta_of(tmp_path) != THETA.tobytes()
    assert replayed.names == [("w0", k) for k in range(12)]
    assert replay(tmp_path, until=2).state.version == 2


def test_replay_crosses_epochs_and_changed_options(tmp_path):
    """The second epoch starts from version 3 with another learning rate, which its journal holds."""
    feed(start(tmp_path, JOURNALED), 14)
    feed(start(tmp_path, config(journal=True, learning_rate=0.1)), 8, first=100)
    replayed = replay(tmp_path)
    assert replayed.state.version == 5
    assert replayed.state.theta.tobytes() == theta_of(tmp_path)
    assert [n for _, n in replayed.names] == [*range(12), *range(100, 108)]
    assert [replay(tmp_path, until=version).state.version for version in (2, 3, 4, 5, 6)] == [2, 3, 4, 5, 5]


def test_replay_missing_entry_is_an_error(tmp_path):
    feed(start(tmp_path, JOURNALED), 8)
    feed(start(tmp_path, JOURNALED), 4, first=8)
    (tmp_path / "journal" / "e0001-v0000001.jnl").unlink()
    with pytest.raises(UserError, match="v0000001"):
        replay(tmp_path)


def test_replay_epoch_with_another_start_is_inconsistent(tmp_path):
    feed(start(tmp_path, JOURNALED), 8)
    start(tmp_path, JOURNALED)
    path = tmp_path / "journal" / "e0002-start.jnl"
    record = checkpoint.load(path)
    record["state"]["theta"] = record["state"]["theta"] + np.float32(1e-6)
    checkpoint.save(path, record)
    with pytest.raises(Inconsistent, match="epoch 2 does not start where its parent ended"):
        replay(tmp_path)


def test_replay_ignores_an_epoch_never_begun(tmp_path):
    feed(start(tmp_path, JOURNALED), 8)
    claim(tmp_path / "epochs", Position(1, 2), 0.0)
    assert replay(tmp_path).state.version == 2


def test_replay_corrupt_entry_is_named(tmp_path):
    feed(start(tmp_path, JOURNALED), 4)
    path = tmp_path / "journal" / "e0001-v0000001.jnl"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"e0001-v0000001\.jnl"):
        replay(tmp_path)


def test_replay_without_a_journal_is_inconsistent(tmp_path):
    with pytest.raises(Inconsistent, match="no journal"):
        replay(tmp_path)
    feed(start(tmp_path, config()), 4)
    assert not (tmp_path / "journal").exists()


def test_journal_full_disk_queues_a_bounded_number_of_bytes(tmp_path, monkeypatch):
    full, real = [True], checkpoint.save

    def save(path, record, *rest):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, record, *rest)

    monkeypatch.setattr(journal.checkpoint, "save", save)
    monkeypatch.setattr(journal, "_WAITING_BYTES", 16 * len(b"payload"))
    log = Journal(tmp_path / "journal", 1)
    for version in range(1, 21):
        log.add(version, [b"payload"])
        with pytest.raises(OSError, match="No space"):
            log.flush()
    full[0] = False
    log.add(21, [b"payload"])
    log.flush()
    assert sorted(p.name for p in (tmp_path / "journal").iterdir()) == [f"e0001-v{v:07d}.jnl" for v in range(6, 22)]
    entry = checkpoint.load(tmp_path / "journal" / "e0001-v0000020.jnl")
    assert entry == {"epoch": 1, "version": 20, "payloads": [b"payload"]}


def test_journal_start_holds_state_segments_and_config(tmp_path):
    feed(start(tmp_path, JOURNALED), 4)
    record = checkpoint.load(tmp_path / "journal" / "e0001-start.jnl")
    np.testing.assert_array_equal(record["segments"], SEGMENTS)
    np.testing.assert_array_equal(record["state"]["theta"], THETA)
    assert "batch_samples = 4" in record["config"]
