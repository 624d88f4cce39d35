"""Records on disk: msgpack behind a sha256, replaced atomically. No pickle.

A record is nested dicts, lists, strings, numbers, bytes, None and NumPy arrays. A file that is truncated, altered by one
bit, or foreign is a `CorruptRecord` and never loads.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from common import files
from common.errors import UserError

MAGIC = b"outertrain record 1\n"
_HEADER = len(MAGIC) + 32
_ARRAY = 1
_DTYPES = frozenset(["<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "|b1"])


class CorruptRecord(UserError):
    """The file or the bytes are not a record written by `save` or `pack`."""


def pack(record: Any) -> bytes:
    """`record` as bytes, for `unpack`. Raises TypeError for a value that a record cannot hold."""
    return msgpack.packb(record, default=_encode)


def unpack(data: bytes, name: str = "the record") -> Any:
    """The record in `data`, which errors call `name`. Raises CorruptRecord."""
    try:
        return msgpack.unpackb(data, ext_hook=_decode, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptRecord(
            f"{name} cannot be read ({error or type(error).__name__}): use another copy of it"
        ) from None


def holds(dtype: Any) -> bool:
    """Whether a record can hold arrays of this dtype: not those of JAX's random keys, nor bfloat16."""
    return isinstance(dtype, np.dtype) and dtype.newbyteorder("<").str in _DTYPES


def _encode(value: Any) -> msgpack.ExtType:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"a record cannot hold a {type(value).__name__}")
    if not holds(value.dtype):
        raise TypeError(f"a record cannot hold an array of {value.dtype}")
    shape, kind = value.shape, value.dtype.newbyteorder("<").str
    return msgpack.ExtType(_ARRAY, msgpack.packb([kind, shape, np.ascontiguousarray(value, kind).tobytes()]))


def _decode(code: int, data: bytes) -> np.ndarray:
    kind, shape, content = msgpack.unpackb(data)
    if code != _ARRAY or kind not in _DTYPES:
        raise ValueError("unknown extension")
    return np.frombuffer(content, kind).reshape(shape)


def save(path: Path, record: Any, failpoint: Callable[[str], None] = files.no_failpoint) -> int:
    """Replaces the file `path` by `record` (`common.files.replace`). Returns the bytes written. Raises OSError."""
    body = pack(record)
    return files.replace(path, MAGIC + hashlib.sha256(body).digest() + body, failpoint)


def load(path: Path) -> Any:
    """The record in `path`.

    Raises:
      CorruptRecord: foreign, truncated or altered; the message names the file and the reason.
      UserError: it cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check the path and its permissions") from None
    if not data.startswith(MAGIC):
        foreign = not MAGIC.startswith(data[: len(MAGIC)])
        why = "it is not a file of outertrain" if foreign else "it is truncated"
        raise CorruptRecord(f"{path} is not a usable record ({why}): use another copy or an older checkpoint")
    body = data[_HEADER:]
    if hashlib.sha256(body).digest() != data[len(MAGIC) : _HEADER]:
        raise CorruptRecord(
            f"{path} is corrupt (its sha256 differs, {len(data)} bytes): use another copy or an older checkpoint"
        )
    return unpack(body, str(path))
