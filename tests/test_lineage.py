import json
import os
import threading

import pytest

from common.errors import UserError
from learner import lineage as epochs
from learner.lineage import NO_END, Position, claim, contains, lineage, superseded


def test_claim_takes_epochs_in_turn(tmp_path):
    assert claim(tmp_path, None, 1.0) == 1
    assert claim(tmp_path, Position(1, 7), 2.0) == 2
    record = json.loads((tmp_path / "e0002.json").read_text())
    assert record["parent"] == [1, 7] and record["epoch"] == 2 and record["time"] == 2.0
    assert sorted(os.listdir(tmp_path)) == ["e0001.json", "e0002.json"]


def test_identity_is_that_of_the_first_start(tmp_path):
    assert epochs.identity(tmp_path / "none") == ""
    claim(tmp_path, None, 1.5)
    first = epochs.identity(tmp_path)
    assert first.endswith(f":{os.getpid()}:1.5")
    claim(tmp_path, Position(1, 7), 2.0)
    assert epochs.identity(tmp_path) == first


def test_claim_does_not_fill_a_gap(tmp_path):
    for number in (1, 3):
        write(tmp_path, number, None)
    assert claim(tmp_path, None, 0.0) == 4


def test_superseded_by_a_later_epoch(tmp_path):
    claim(tmp_path, None, 0.0)
    assert not superseded(tmp_path, 1)
    claim(tmp_path, None, 0.0)
    assert superseded(tmp_path, 1) and not superseded(tmp_path, 2)


def test_claim_in_threads_gives_distinct_epochs(tmp_path):
    numbers, gate = [], threading.Barrier(8)

    def start():
        gate.wait()
        numbers.append(claim(tmp_path / f"{0}", None, 0.0))

    (tmp_path / "0").mkdir()
    real = epochs._check_exclusive_create
    epochs._check_exclusive_create = lambda folder: None  # its probe is named by process, and these are threads
    try:
        threads = [threading.Thread(target=start) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    finally:
        epochs._check_exclusive_create = real
    assert sorted(numbers) == list(range(1, 9))


def write(folder, number, parent):
    (folder / f"e{number:04d}.json").write_text(json.dumps({"epoch": number, "parent": parent}))


def test_lineage_of_a_new_run_is_empty(tmp_path):
    assert lineage(tmp_path / "none") == {} == lineage(tmp_path)
    assert not contains({}, Position(1, 0))


def test_lineage_follows_parents_from_the_newest_record(tmp_path):
    for number, parent in ((1, None), (2, [1, 10]), (3, [1, 12]), (4, [3, 15])):
        write(tmp_path, number, parent)
    chain = lineage(tmp_path)
    assert list(chain.items()) == [(4, NO_END), (3, 15), (1, 12)]
    assert lineage(tmp_path, head=2) == {2: NO_END, 1: 10}
    on = [Position(4, 99), Position(3, 15), Position(1, 12), Position(1, 0)]
    off = [Position(3, 16), Position(2, 10), Position(2, 11), Position(1, 13), Position(5, 0)]
    assert all(contains(chain, p) for p in on) and not any(contains(chain, p) for p in off)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"parent": [1]}', '{"parent": "x"}', '{"parent": [3, 1]}', '{"parent": [1, -1]}']
)
def test_lineage_ignores_epochs_without_a_readable_record(tmp_path, text):
    write(tmp_path, 1, None)
    write(tmp_path, 2, [1, 5])
    (tmp_path / "e0003.json").write_text(text)
    assert list(lineage(tmp_path)) == [2, 1]
    assert claim(tmp_path, Position(2, 8), 0.0) == 4


def test_lineage_version_0_may_be_a_parent(tmp_path):
    write(tmp_path, 1, None)
    write(tmp_path, 2, [1, 0])
    assert lineage(tmp_path) == {2: NO_END, 1: 0}


def test_lineage_ignores_foreign_files(tmp_path):
    write(tmp_path, 1, None)
    for name in ("e2.json.tmp", "notes", "e.json", ".e0003.json"):
        (tmp_path / name).write_text("{}")
    assert list(lineage(tmp_path)) == [1]


def test_claim_storage_without_exclusive_create_is_an_error(tmp_path, monkeypatch):
    real = os.open
    monkeypatch.setattr(epochs.os, "open", lambda path, flags, *rest: real(path, flags & ~os.O_EXCL, *rest))
    with pytest.raises(UserError, match=r"lets two processes create the same file.*put the run directory on"):
        claim(tmp_path, None, 0.0)
    assert os.listdir(tmp_path) == []


def test_claim_failed_write_leaves_no_epoch(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(28, "No space left on device")

    claim(tmp_path, None, 0.0)
    monkeypatch.setattr(epochs.os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        claim(tmp_path, Position(1, 1), 0.0)
    assert os.listdir(tmp_path) == ["e0001.json"]


def test_released_epoch_supersedes_nobody(tmp_path):
    claim(tmp_path, None, 0.0)
    epochs.release(tmp_path, claim(tmp_path, None, 0.0))
    assert not superseded(tmp_path, 1)
    epochs.release(tmp_path, 7)
    assert claim(tmp_path, None, 0.0) == 2
