import contextlib
import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import checkpoint, files
from common.checkpoint import CorruptRecord
from common.errors import UserError

RECORD = {
    "theta": np.linspace(0, 1, 50).astype(np.float32),
    "count": np.int32(7),
    "flags": np.array([[True, False]]),
    "names": {"w0": [3, 1], "": []},
    7: [None, True, 1.5, b"bytes", "text", -(2**40)],
}


def test_record_survives_packing(tmp_path):
    path = tmp_path / "a.ckpt"
    assert checkpoint.save(path, RECORD) == path.stat().st_size
    read = checkpoint.load(path)
    assert read[7] == RECORD[7] and read["names"] == RECORD["names"]
    for name in ("theta", "count", "flags"):
        expected = np.asarray(RECORD[name])
        assert (read[name].dtype, read[name].shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(read[name], expected)
    assert os.listdir(tmp_path) == ["a.ckpt"]


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i8"])
def test_arrays_of_every_dtype_survive_packing(kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    read = checkpoint.unpack(checkpoint.pack(array[:, ::-1]))
    np.testing.assert_array_equal(read, array[:, ::-1])
    assert read.dtype == array.dtype.newbyteorder("<")


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), np.array(["text"]), np.array([1j])])
def test_pack_foreign_object_is_a_type_error(value):
    with pytest.raises(TypeError, match="cannot hold"):
        checkpoint.pack({"x": value})


def test_load_truncated_file_is_corrupt(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoint.save(path, RECORD)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(CorruptRecord, match=r"a\.ckpt"):
            checkpoint.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(CorruptRecord, match="sha256"):
        checkpoint.load(path)


def test_load_flipped_bit_is_corrupt(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoint.save(path, RECORD)
    data = path.read_bytes()
    for position in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(CorruptRecord):
            checkpoint.load(path)


def test_load_foreign_file_is_named_as_one(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(UserError, match=r"picture\.png .*not a file of outertrain.*use another"):
        checkpoint.load(path)


def test_load_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.ckpt \(No such file"):
        checkpoint.load(tmp_path / "none.ckpt")


@given(st.binary(max_size=60))
def test_unpack_any_bytes_gives_a_record_or_corrupt(data):
    with contextlib.suppress(CorruptRecord):
        checkpoint.unpack(data)


@pytest.mark.parametrize(
    "data",
    [
        *(b"\xc1", b"\x91" * 100_000, b"\xd4\x05x", b"\xc7\x02\x01\x91\x01"),
        checkpoint.msgpack.packb(checkpoint.msgpack.ExtType(5, checkpoint.msgpack.packb(["<f4", [1], b"\0" * 4]))),
        checkpoint.msgpack.packb(checkpoint.msgpack.ExtType(1, checkpoint.msgpack.packb(["<f4", [3], b"\0" * 8]))),
        checkpoint.msgpack.packb(checkpoint.msgpack.ExtType(1, checkpoint.msgpack.packb(["|O8", [1], b"\0" * 8]))),
    ],
)
def test_unpack_hostile_bytes_are_corrupt(data):
    with pytest.raises(CorruptRecord):
        checkpoint.unpack(data)


def test_save_reaches_its_failpoints_in_order(tmp_path):
    steps = []
    checkpoint.save(tmp_path / "a.ckpt", RECORD, steps.append)
    assert steps == [f"{when}_{what}" for what in ("write", "fsync", "rename") for when in ("before", "after")]


@pytest.mark.parametrize("step", ["before_write", "after_write", "before_fsync", "after_fsync", "before_rename"])
def test_save_failure_before_the_rename_keeps_the_old_record(tmp_path, step):
    path = tmp_path / "a.ckpt"
    checkpoint.save(path, {"old": 1})

    def fail(point):
        if point == step:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, RECORD, fail)
    assert checkpoint.load(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_save_is_durable_before_it_is_visible(tmp_path, monkeypatch):
    """File content, then the rename, then the folder: the order in which a power cut keeps one whole file."""
    events = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real_fsync(descriptor)

    def replace(old, new):
        events.append("rename")
        real_replace(old, new)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    checkpoint.save(tmp_path / "a.ckpt", RECORD)
    assert events == ["file", "rename", "folder"]
