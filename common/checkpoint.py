"""Records on disk: msgpack behind a sha256, replaced atomically.

A record is nested dicts, lists, strings, numbers, bytes, None and NumPy arrays. A file is whole or it is `Damaged`:
cut short, one bit flipped, or foreign, it never loads. No pickle.
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


class Damaged(UserError):
    """The file or the bytes are not a record that we wrote."""


def pack(record: Any) -> bytes:
    """`record` as bytes that `unpack` takes. Raises TypeError on what a record cannot hold."""
    return msgpack.packb(record, default=_encode)


def unpack(data: bytes, name: str = "the record") -> Any:
    """Raises Damaged."""
    try:
        return msgpack.unpackb(data, ext_hook=_decode, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Damaged(f"{name} cannot be read ({error or type(error).__name__}): use another copy of it") from None


def _encode(value: Any) -> msgpack.ExtType:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"a record cannot hold a {type(value).__name__}")
    shape, kind = value.shape, value.dtype.newbyteorder("<").str
    if kind not in _DTYPES:
        raise TypeError(f"a record cannot hold an array of {value.dtype}")
    return msgpack.ExtType(_ARRAY, msgpack.packb([kind, shape, np.ascontiguousarray(value, kind).tobytes()]))


def _decode(code: int, data: bytes) -> np.ndarray:
    kind, shape, content = msgpack.unpackb(data)
    if code != _ARRAY or kind not in _DTYPES:
        raise ValueError("unknown extension")
    return np.frombuffer(content, kind).reshape(shape)


def save(path: Path, record: Any, reached: Callable[[str], None] = files.no_failpoint) -> int:
    """Replaces `path` by `record` (`common.files.replace`), and returns the bytes written. Raises OSError."""
    body = pack(record)
    return files.replace(path, MAGIC + hashlib.sha256(body).digest() + body, reached)


def load(path: Path) -> Any:
    """The record in `path`.

    Raises:
      Damaged: foreign, cut short or altered, named with the reason.
      UserError: it cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check the path and its permissions") from None
    if not data.startswith(MAGIC):
        foreign = not MAGIC.startswith(data[: len(MAGIC)])
        why = "it is not a file of outertrain" if foreign else "it is cut short"
        raise Damaged(f"{path} is not a usable record ({why}): use another copy or an older checkpoint")
    body = data[_HEADER:]
    if hashlib.sha256(body).digest() != data[len(MAGIC) : _HEADER]:
        raise Damaged(
            f"{path} is damaged (its sha256 differs, {len(data)} bytes): use another copy or an older checkpoint"
        )
    return unpack(body, str(path))
