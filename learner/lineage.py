"""The epoch fence: which incarnation of the learner this is, and which earlier ones are its ancestors.

A learner that starts claims the next epoch by an exclusive create of `epochs/e<number>.json`, which fails if it exists;
the record names its parent, the checkpoint that it starts from. Following the parents from the newest record gives the
one lineage that is ever read: what an older epoch wrote past its child's parent is ignored, even if it still writes.
"""

import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError
from common.files import sync

NO_END = 2**63 - 1  # the last version that counts in the newest epoch
_NAME = re.compile(r"e(\d+)\.json")


class Position(NamedTuple):
    """A point in a run's history, which names checkpoints and parameters."""

    epoch: int
    version: int


def claim(folder: Path, parent: Position | None, time: float, start: str | None = None) -> int:
    """Claims the next epoch and returns its number.

    Args:
      folder: `epochs/` of the run.
      parent: the checkpoint that the epoch starts from; None for a new run.
      time: in unix seconds.
      start: sha256 of the theta that a new run begins with.

    Raises:
      OSError: the record cannot be written.
      UserError: the storage has no exclusive create.
    """
    _check_exclusive_create(folder)
    number = max(_numbers(folder), default=0) + 1
    facts = {"parent": parent, "time": time, "host": socket.gethostname(), "pid": os.getpid()}
    facts |= {} if start is None else {"start": start}
    while not _create(_path(folder, number), json.dumps({"epoch": number, **facts}) + "\n"):
        number += 1
    sync(folder)
    return number


def release(folder: Path, number: int) -> None:
    """Releases an epoch that its learner could not begin, so that it supersedes no other."""
    with suppress(OSError):
        _path(folder, number).unlink(missing_ok=True)


def superseded(folder: Path, number: int) -> bool:
    """Whether a later learner has taken over. Costs one `stat`."""
    return _path(folder, number + 1).exists()


def lineage(folder: Path, head: int | None = None) -> dict[int, int]:
    """Each epoch of the lineage -> the last of its versions that counts, newest epoch first; empty for a new run.

    Args:
      folder: `epochs/` of the run.
      head: the last epoch of the lineage; None: the newest, which is what readers see. An epoch without a readable
        record was claimed and never begun, and is ignored.
    """
    records = {n: r for n in _numbers(folder) if (r := _read(folder, n)) is not None}
    chain: dict[int, int] = {}
    position = Position(head or max(records), NO_END) if records else None
    while position is not None:
        chain[position.epoch] = position.version
        parent = records[position.epoch]["parent"] if position.epoch in records else None
        position = None if parent is None else Position(*parent)
    return chain


def identity(folder: Path) -> str:
    """An identifier of the run: where and when its first learner started. "" before that."""
    for number in sorted(_numbers(folder)):
        record = _read(folder, number)
        if record is not None:
            return ":".join(str(record.get(key, "")) for key in ("host", "pid", "time"))
    return ""


def newest_host(folder: Path) -> str | None:
    """The host name of the newest learner's machine; None where no record says it."""
    for number in sorted(_numbers(folder), reverse=True):
        record = _read(folder, number)
        if record is not None:
            return str(record["host"]) if "host" in record else None
    return None


def contains(chain: Mapping[int, int], position: Position) -> bool:
    """Whether the position lies on the lineage `chain`."""
    return position.version <= chain.get(position.epoch, -1)


def _path(folder: Path, number: int) -> Path:
    return folder / f"e{number:04d}.json"


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(match[1]) for name in os.listdir(folder) if (match := _NAME.fullmatch(name))]


def _create(path: Path, text: str) -> bool:
    """Whether this call created the file; False when it existed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _read(folder: Path, number: int) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(_path(folder, number).read_text())
        parent = record["parent"]
        if parent is not None and not (int(parent[0]) < number and int(parent[1]) >= 0):
            return None
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None
    return record


def _check_exclusive_create(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    probe = folder / f".probe-{secrets.token_hex(8)}"  # containers may agree in host name and process id
    probe.unlink(missing_ok=True)
    try:
        twice = _create(probe, "") and _create(probe, "")
    finally:
        probe.unlink(missing_ok=True)
    if twice:
        raise UserError(
            f"the storage of {folder} lets two processes create the same file, so a second learner could not be detected: put the run directory on a local disk or on NFS version 4"
        )
