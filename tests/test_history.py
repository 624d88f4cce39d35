"""Readers of a history: one lineage, whatever else the file holds, and no more of it than needed."""

import errno
import json
import os

import pytest
from helpers import run_files

from common import jsonlines
from common.jsonlines import Writer
from learner.history import HistoryReader, read_history, read_newest
from learner.lineage import Position, claim


def line(epoch, version):
    return run_files.history(1)[0]._replace(epoch=epoch, version=version).to_json()


def append(log, entry):
    log.add(entry)
    log.flush()


def places(run):
    return [(r.epoch, r.version) for r in read_history(run)]


def test_read_history_of_a_new_run_is_empty(tmp_path):
    assert read_history(tmp_path) == []


def test_read_history_ignores_lines_past_the_parent(tmp_path):
    claim(tmp_path / "epochs", None, 0.0)
    claim(tmp_path / "epochs", Position(1, 2), 0.0)
    log = Writer(tmp_path / "history.jsonl")
    for place in ((1, 1), (1, 2), (1, 3), (2, 3), (1, 4), (2, 4)):
        append(log, line(*place))
    assert places(tmp_path) == [(1, 1), (1, 2), (2, 3), (2, 4)]


def test_read_history_skips_torn_and_foreign_lines(tmp_path):
    claim(tmp_path / "epochs", None, 0.0)
    path = tmp_path / "history.jsonl"
    path.write_bytes(json.dumps(line(1, 1)).encode() + b'\n[]\n{"version": "x"}\n\xff\xfe\n{"epoch": 1, "ver')
    append(Writer(path), line(1, 2))
    assert places(tmp_path) == [(1, 1), (1, 2)]


@pytest.mark.parametrize("change", [{"loss": 10**400}, {"samples": 10**400}, {"var_rp": {"q05": 10**400}}])
def test_read_history_skips_numbers_that_are_too_large(tmp_path, change):
    claim(tmp_path / "epochs", None, 0.0)
    log, whole = Writer(tmp_path / "history.jsonl"), line(1, 2)
    extended = {key: whole[key] | value if isinstance(value, dict) else value for key, value in change.items()}
    for entry in (line(1, 1), whole | extended, line(1, 3)):
        append(log, entry)
    assert places(tmp_path) == [(1, 1), (1, 3)]


def test_writers_of_two_epochs_leave_no_empty_line(tmp_path):
    for version in (1, 2):
        append(Writer(tmp_path / "history.jsonl"), line(1, version))
    assert (tmp_path / "history.jsonl").read_bytes().count(b"\n") == 2


def test_read_newest_equals_the_end_of_read_history(tmp_path):
    """Whatever else the file holds: lines of a superseded epoch, torn ones, or none at all."""
    assert read_newest(tmp_path, 3) == []
    claim(tmp_path / "epochs", None, 0.0)
    claim(tmp_path / "epochs", Position(1, 390), 0.0)
    first, second = (1, range(1, 400)), (2, range(391, 395))
    late = (1, range(400, 1000))  # by the first epoch, which does not know that it was superseded
    known = line(1, 1)
    lines = [json.dumps(known | {"epoch": e, "version": v}) for e, versions in (first, second, late) for v in versions]
    (tmp_path / "history.jsonl").write_text("\n".join([*lines, '{"epoch": 2, "ver']))
    whole = read_history(tmp_path)
    for count in (1, 3, 20, 394, 1000):
        assert read_newest(tmp_path, count) == whole[-count:]
    assert len(whole) == 394 and (tmp_path / "history.jsonl").stat().st_size > 2**16


def test_writer_full_disk_loses_no_line(tmp_path, monkeypatch):
    """Half a line is written, then nothing for a while: when there is room again all lines are there, each once."""
    claim(tmp_path / "epochs", None, 0.0)
    log, real, room = Writer(tmp_path / "history.jsonl"), os.write, [10_000]

    def write(descriptor, data):
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    append(log, line(1, 1))
    room[0] = 12
    for version in (2, 3):
        with pytest.raises(OSError, match="No space"):
            append(log, line(1, version))
    room[0] = 10_000
    append(log, line(1, 4))
    assert places(tmp_path) == [(1, 1), (1, 2), (1, 3), (1, 4)]


def test_writer_queue_is_bounded(tmp_path):
    log = Writer(tmp_path / "missing" / "history.jsonl")
    for version in range(1500):
        with pytest.raises(OSError, match="No such file"):
            append(log, line(1, version))
    assert len(log._queued) == 1000


UPDATES = 2_000


@pytest.fixture
def long_run(tmp_path):
    """A run of many updates, and a counter of the lines that are parsed."""
    claim(tmp_path / "epochs", None, 0.0)
    text = json.dumps(line(1, 0))
    place = '"version": 0'
    assert text.count(place) == 1
    lines = (text.replace(place, f'"version": {version}') + "\n" for version in range(1, UPDATES + 1))
    (tmp_path / "history.jsonl").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def parsed(monkeypatch):
    """The lines that are parsed."""
    seen, parse = [], json.loads
    monkeypatch.setattr(
        jsonlines.json,
        "loads",
        lambda text: seen.append(text.encode() if isinstance(text, str) else text) or parse(text),
    )
    return seen


def test_reader_parses_only_what_was_appended(long_run, parsed):
    reader, log = HistoryReader(long_run), Writer(long_run / "history.jsonl")
    assert len(reader.read()) == UPDATES
    parsed.clear()
    append(log, line(1, UPDATES + 1))
    assert len(reader.read()) == len(reader.read()) == UPDATES + 1
    assert len([text for text in parsed if b"verdicts" in text]) == 1
    assert reader.read() == read_history(long_run)


def test_read_newest_parses_a_hundred_of_many_updates(long_run, parsed):
    assert [r.version for r in read_newest(long_run, 100)] == list(range(UPDATES - 99, UPDATES + 1))
    assert len(parsed) < 400


def test_reader_waits_for_the_end_of_a_line(tmp_path):
    claim(tmp_path / "epochs", None, 0.0)
    reader, path = HistoryReader(tmp_path), tmp_path / "history.jsonl"
    assert reader.read() == []
    text = json.dumps(line(1, 1)) + "\n" + json.dumps(line(1, 2)) + "\n"
    for end in range(0, len(text) + 1, 7):
        path.write_text(text[:end])
        assert len(reader.read()) == text[:end].count("\n")
    path.write_text(text)
    assert [r.version for r in reader.read()] == [1, 2]


def test_reader_follows_the_lineage_to_a_later_epoch(tmp_path):
    claim(tmp_path / "epochs", None, 0.0)
    log, reader = Writer(tmp_path / "history.jsonl"), HistoryReader(tmp_path)
    for version in (1, 2, 3, 4):
        append(log, line(1, version))
    assert [(r.epoch, r.version) for r in reader.read()] == [(1, v) for v in (1, 2, 3, 4)]
    claim(tmp_path / "epochs", Position(1, 2), 0.0)
    assert [(r.epoch, r.version) for r in reader.read()] == [(1, 1), (1, 2)]
    append(log, line(2, 3))
    append(log, line(1, 5))
    assert reader.read() == read_history(tmp_path) and len(reader.read()) == 3


def test_reader_starts_again_when_the_file_is_replaced(tmp_path):
    claim(tmp_path / "epochs", None, 0.0)
    path, reader = tmp_path / "history.jsonl", HistoryReader(tmp_path)
    for version in (1, 2, 3):
        append(Writer(path), line(1, version))
    assert len(reader.read()) == 3
    path.write_text(json.dumps(line(1, 7)) + "\n")  # shorter
    assert [r.version for r in reader.read()] == [7]
    (tmp_path / "new").write_text("".join(json.dumps(line(1, v)) + "\n" for v in range(1, 9)))  # longer
    (tmp_path / "new").replace(path)
    assert [r.version for r in reader.read()] == list(range(1, 9))
    path.unlink()
    assert reader.read() == []
