"""One reader and one writer of JSON lines, through crashes and full disks."""

import errno
import json
import os
from pathlib import Path

import pytest

from common import jsonlines
from common.jsonlines import Writer


def test_read_missing_file_is_empty(tmp_path: Path) -> None:
    assert jsonlines.read(tmp_path / "none.jsonl") == []
    assert jsonlines.read_last(tmp_path / "none.jsonl", 3, list) == []


@pytest.mark.parametrize("torn", [b'{"a"', b"[]", b"\xff\xfe", b"", b"3", b"[" * 10**5], ids=lambda torn: torn[:8])
def test_read_torn_and_foreign_lines_are_skipped(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn + b'\n{"a": 2}\n' + torn)
    assert jsonlines.read(path) == [{"a": 1}, {"a": 2}]
    assert jsonlines.read_last(path, 1, list) == [{"a": 2}]


def test_writer_closes_a_torn_line_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a"')
    writer = Writer(path)
    writer.add({"a": 2})
    writer.flush()
    assert path.read_bytes() == b'{"a": 1}\n{"a"\n{"a": 2}\n'


def test_writer_full_disk_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    writer, real, room = Writer(path), os.write, [5]

    def write(descriptor: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    for number in (1, 2):
        writer.add({"a": number})
        with pytest.raises(OSError, match="No space"):
            writer.flush()
    room[0] = 1000
    writer.flush()
    assert jsonlines.read(path) == [{"a": 1}, {"a": 2}]


def test_writer_infinity_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Writer(tmp_path / "a.jsonl").add({"a": float("inf")})


@pytest.mark.parametrize("count", [1, 7, 5000, 20000])
def test_read_last_equals_the_end_of_read(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"number": n, "text": "x" * (n % 50)}) + "\n" for n in range(10000)))
    assert jsonlines.read_last(path, count, list) == jsonlines.read(path)[-count:]


def test_read_last_reads_only_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' * 10**6)
    parsed: list[bytes] = []

    def parse(lines):
        for line in lines:
            parsed.append(line)
            yield json.loads(line)

    monkeypatch.setattr(jsonlines, "parse", parse)
    assert len(jsonlines.read_last(path, 20, list)) == 20
    assert len(parsed) < 10**4
