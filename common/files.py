"""Atomic, durable replacement of files: readers see the old content or the new one, never a part."""

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def no_failpoint(step: str) -> None:
    """The default hook of `replace`: no failpoint is set."""


def replace(
    path: Path, content: bytes | str, failpoint: Callable[[str], None] = no_failpoint, mode: int | None = None
) -> int:
    """Replaces the file at `path`, and returns the number of bytes written.

    When this returns, the new content survives a power failure; if it is interrupted, the old file is still complete.
    A failed write leaves no temporary file.

    Args:
      content: bytes, or text that is written as UTF-8.
      failpoint: called with the name of each step before and after it.
      mode: permissions of the file, whatever the umask; the default is what the umask leaves.

    Raises:
      OSError: from the file system; `path` holds either the old content or the new one.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # process ids repeat on other hosts
    try:
        _write(temporary, data, failpoint)
        if mode is not None:
            temporary.chmod(mode)
        failpoint("before_rename")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    failpoint("after_rename")
    sync(path.parent)
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


def sync(path: Path) -> None:
    """Makes the content of a file durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain(error: OSError) -> str:
    """Returns what is wrong with the storage, and what the user can do about it."""
    advice = {
        errno.ENOSPC: "the disk is full: free space, or set OUTERTRAIN_RUNS to a folder on another disk",
        errno.EACCES: "permission denied: change its permissions, or set OUTERTRAIN_RUNS to another folder",
        errno.EROFS: "the file system is read-only: set OUTERTRAIN_RUNS to another folder",
        errno.EDQUOT: "your disk quota is exhausted: free space, or set OUTERTRAIN_RUNS to a folder on another disk",
        errno.EEXIST: "a file exists where a folder is needed: move it, or choose another folder",
        errno.EISDIR: "a folder exists where a file is needed: move it",
        errno.ENAMETOOLONG: "the name is too long for the file system: use a shorter one",
        errno.ELOOP: "symbolic links lead to one another: remove one of them",
        errno.ENOTDIR: "a file exists where a folder is needed: move it, or set OUTERTRAIN_RUNS to another folder",
    }
    return advice.get(error.errno or 0, str(error))
