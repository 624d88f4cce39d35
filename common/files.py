"""Files that are replaced atomically and durably: readers see the old content or the new one, never a part."""

import errno
import os
from collections.abc import Callable
from pathlib import Path


def no_failpoint(step: str) -> None:
    """Default of `replace`'s hook: no failpoint is set."""


def replace(path: Path, content: bytes | str, failpoint: Callable[[str], None] = no_failpoint) -> int:
    """Replaces the file at `path`, and returns the bytes written.

    When this returns, the file survives a power cut; whenever it is interrupted, the old file is still complete. A
    failed write leaves no temporary file behind.

    Args:
      content: bytes, or text that is written as UTF-8.
      failpoint: called with the name of each step before and after it.

    Raises:
      OSError: from the file system; `path` holds either its old content or the new one, complete.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write(temporary, data, failpoint)
        failpoint("before_rename")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    failpoint("after_rename")
    sync_folder(path.parent)
    return len(data)


def _write(temporary: Path, data: bytes, failpoint: Callable[[str], None]) -> None:
    failpoint("before_write")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        failpoint("after_write")
        failpoint("before_fsync")
        os.fsync(file.fileno())
    failpoint("after_fsync")


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable, not only the files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain(error: OSError) -> str:
    """What the user can do about an error of the file system."""
    advice = {
        errno.ENOSPC: "the disk is full: make room, or set OUTERTRAIN_RUNS to a place with room",
        errno.EACCES: "it is not writable for you: change its permissions, or set OUTERTRAIN_RUNS to another place",
        errno.EROFS: "the file system is read-only: set OUTERTRAIN_RUNS to another place",
        errno.EDQUOT: "your quota is used up: make room, or set OUTERTRAIN_RUNS to a place with room",
        errno.EEXIST: "a file stands where a folder is needed: move it, or choose another place",
        errno.ENOTDIR: "a file stands where a folder is needed: move it, or set OUTERTRAIN_RUNS to another place",
    }
    return advice.get(error.errno or 0, str(error))
