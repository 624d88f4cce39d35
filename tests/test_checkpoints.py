import logging

import numpy as np
import pytest

from common import checkpoint
from common.errors import UserError
from common.files import no_failpoint
from learner.checkpoints import clean, latest_checkpoint, load_theta, newest, path_of, positions, retain, save, versions
from learner.lineage import NO_END, Position, claim

CHAIN = {2: NO_END, 1: 10}


def fill(folder, *places):
    for place in places:
        save(folder, Position(*place), {"at": list(place)}, no_failpoint)


def names(folder):
    return [tuple(p) for p in positions(folder)]


def test_newest_is_the_last_on_the_lineage(tmp_path):
    fill(tmp_path, (1, 9), (1, 10), (1, 11), (2, 10), (2, 11), (3, 50))
    assert newest(tmp_path, CHAIN)[0] == (2, 11)
    assert newest(tmp_path, {1: 10})[0] == (1, 10)
    assert newest(tmp_path, {}) is None
    assert newest(tmp_path / "none", CHAIN) is None


def test_positions_sort_by_number_not_by_name(tmp_path):
    fill(tmp_path, (1, 9), (1, 12345678), (1, 100))
    assert names(tmp_path)[-1] == (1, 12345678)


def test_newest_skips_corrupt_ones_and_names_them(tmp_path, caplog):
    fill(tmp_path, (1, 8), (1, 9), (1, 10))
    path_of(tmp_path, Position(1, 10)).write_bytes(b"")
    corrupt = path_of(tmp_path, Position(1, 9))
    corrupt.write_bytes(corrupt.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        place, record = newest(tmp_path, CHAIN)
    assert place == (1, 8) and record == {"at": [1, 8]}
    assert [str(path_of(tmp_path, Position(1, v))) in r.message for v, r in zip((10, 9), caplog.records, strict=True)]
    assert all("falling back to the checkpoint before it" in r.message for r in caplog.records)


def test_retain_keeps_the_newest_of_the_lineage(tmp_path):
    fill(tmp_path, (1, 8), (1, 9), (1, 10), (1, 11), (1, 12), (2, 10), (2, 11), (3, 10))
    retain(tmp_path, CHAIN, epoch=2, keep=3)
    assert names(tmp_path) == [(1, 10), (2, 10), (2, 11), (3, 10)]


def test_retain_every_nth_version_is_kept(tmp_path):
    fill(tmp_path, *((1, v) for v in range(13)), (2, 12), (2, 13))
    retain(tmp_path, {1: 11, 2: NO_END}, epoch=2, keep=2, every=5)
    assert names(tmp_path) == [(1, 0), (1, 5), (1, 10), (2, 12), (2, 13)]


def test_retain_superseded_learner_deletes_nothing_newer(tmp_path):
    fill(tmp_path, (1, 10), (2, 10), (1, 11), (1, 12), (1, 13))
    retain(tmp_path, {1: NO_END}, epoch=1, keep=2)
    assert names(tmp_path) == [(1, 12), (1, 13), (2, 10)]


def test_clean_removes_temporary_files_of_earlier_epochs(tmp_path):
    fill(tmp_path, (1, 1))
    left = (".e0001-v0000002.ckpt.77.tmp", ".e0001-v0000002.jnl.77.tmp", ".e0001-start.jnl.77.tmp")
    for name in (*left, ".e0002-v0000002.ckpt.78.tmp", ".other.tmp"):
        (tmp_path / name).write_bytes(b"half")
    clean(tmp_path, epoch=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".e0002-v0000002.ckpt.78.tmp",
        ".other.tmp",
        "e0001-v0000001.ckpt",
    ]


def test_latest_and_versions_follow_the_lineage(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    claim(tmp_path / "epochs", None, 0.0)
    with pytest.raises(UserError, match="holds no usable checkpoint"):
        latest_checkpoint(tmp_path)
    theta = np.arange(3, dtype=np.float32)
    for version in (4, 5):
        save(tmp_path / "checkpoints", Position(1, version), {"theta": theta + version}, no_failpoint)
    path = latest_checkpoint(tmp_path)
    np.testing.assert_array_equal(load_theta(path), theta + 5)
    assert versions(tmp_path) == [(v, path_of(tmp_path / "checkpoints", Position(1, v))) for v in (4, 5)]


def test_load_theta_record_without_theta_is_corrupt(tmp_path):
    checkpoint.save(tmp_path / "journal.jnl", {"payloads": []})
    with pytest.raises(UserError, match=r"journal\.jnl holds no parameters"):
        load_theta(tmp_path / "journal.jnl")
