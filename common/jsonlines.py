"""Files of JSON lines: one object per line, appended by one writer, read by anyone at any time.

A crash or a full disk may leave a torn line: readers skip it, and the writer terminates it before its next line.
"""

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

INFINITY = "inf"  # JSON has no infinity; float("inf") reads it
_FIRST_READ = 2**16  # bytes read first from the end of a file; a line of a history has about 1,000
Record = dict[str, Any]
T = TypeVar("T")


class Writer:
    """Appends records. After a failed write they stay queued, and are written first when there is space again.

    Not fsynced: a power failure may lose the last lines.
    """

    def __init__(self, path: Path, most_queued: int = 1000) -> None:
        """`most_queued`: records kept while writes fail; beyond it the oldest are lost."""
        self._path = path
        self._queued: deque[bytes] = deque(maxlen=most_queued)
        self._torn = _ends_in_a_torn_line(path)

    def add(self, record: Mapping[str, Any]) -> None:
        """Queues a record for the next `flush`. Raises ValueError for values that JSON lacks, such as infinity."""
        self._queued.append(json.dumps(record, allow_nan=False).encode() + b"\n")

    def flush(self) -> None:
        """Writes what is queued. Raises OSError; everything then stays queued."""
        data = b"\n" * self._torn + b"".join(self._queued)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._torn = True
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
        self._torn = False
        self._queued.clear()


def writable(value: float | None) -> float | str | None:
    """`value` in the form that JSON can hold: infinity as text."""
    return INFINITY if value == math.inf else value


def _ends_in_a_torn_line(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read(path: Path) -> list[Record]:
    """All records of the file, in order; none where there is no file. Torn and foreign lines are skipped."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        return list(parse(file))


def read_last(path: Path, count: int, select: Callable[[Iterable[Record]], list[T]]) -> list[T]:
    """The last `count` records, read from the end of the file: the cost does not grow with its length.

    Args:
      select: the wanted records of a tail of the file, such as `list` for all of them; `count` is of what it returns.
    """
    if not path.exists():
        return []
    with open(path, "rb") as file:
        size, length = file.seek(0, os.SEEK_END), _FIRST_READ
        while True:
            file.seek(max(0, size - length))
            if length < size:
                file.readline()  # most likely the end of a line
            found = select(parse(file))[-count:]
            if len(found) == count or length >= size:
                return found
            length *= 4


class Tail:
    """Reads a growing file piece by piece."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1  # inode of the file that was read
        self._offset = 0  # bytes of it that were read, up to the end of a line
        self.restarted = False  # whether the last `read` began at the start: the first one, or the file was replaced

    def read(self) -> list[Record]:
        """The records of the lines that were completed since the last call, or all of them when it has restarted."""
        try:
            file = open(self._path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            self.restarted, self._offset = True, 0
            return []
        with file:
            status = os.fstat(file.fileno())
            self.restarted = self._offset == 0 or status.st_ino != self._file or status.st_size < self._offset
            self._file, self._offset = status.st_ino, 0 if self.restarted else self._offset
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(complete) + len(newline)
        return list(parse(complete.split(b"\n")))


def parse(lines: Iterable[bytes]) -> Iterator[Record]:
    """The records of those lines that hold a JSON object."""
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # the latter for thousands of brackets
            continue
        if isinstance(record, dict):
            yield record
