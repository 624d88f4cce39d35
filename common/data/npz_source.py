"""A .npz file with images and labels as a source for a class store.

Pairs of arrays are found by the names that Keras, MedMNIST and others use. Members are read as streams, part by part:
a file of any size needs the memory of one part.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from common.errors import UserError

PART_BYTES = 64 * 2**20  # of the images that are in memory together
NAMES = {  # file of the store -> names of images and labels, in the order of preference
    "train": (
        ("x_train", "y_train"),
        ("train_images", "train_labels"),
        ("images", "labels"),
        ("x", "y"),
        ("X", "y"),
        ("data", "labels"),
    ),
    "test": (("x_test", "y_test"), ("test_images", "test_labels"), ("val_images", "val_labels")),
}
HELD_OUT = 10  # where there are no test images, every tenth image of each class is one
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)  # encrypted: RuntimeError


class Member(NamedTuple):
    """One array of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    checksum: int


class Part(NamedTuple):
    """Consecutive images of one array."""

    member: Member
    start: int
    labels: np.ndarray  # [n]
    chosen: np.ndarray  # [n] bool: those that belong to this part's file of the store


class Npz:
    """The images and labels of one file (common.data.prepare.Source), in their own shape."""

    def __init__(self, path: Path):
        self.description = f"the images in {path}"
        self.rejected: dict[str, str] = {}
        self.names: list[str] | None = None
        self._path = path
        self._stream: IO[bytes] | None = None
        self._position = ("", 0)  # of the stream: array, and bytes after its header
        members = _members(path)
        pairs = {file: pair for file, names in NAMES.items() if (pair := _pair(path, members, names))}
        if "train" not in pairs:
            raise UserError(
                f"{path} holds the arrays {', '.join(members) or 'none'}, but images and labels are needed, for example "
                "`images` (uint8 [n, height, width, channels]) and `labels` (integers [n])."
            )
        self.image_shape = _image_shape(path, [images for images, _ in pairs.values()])
        labels = {file: _labels(path, images, label) for file, (images, label) in pairs.items()}
        if not len(labels["train"]) or 0 in self.image_shape:
            raise UserError(f"{path} holds no training images: it needs at least one of each class.")
        self.first_label = int(labels["train"].min())
        self.classes = int(labels["train"].max()) - self.first_label + 1
        if self.classes > len(labels["train"]):
            raise UserError(
                f"the labels in {path} range from {self.first_label} to {int(labels['train'].max())}, which is more classes "
                f"than its {len(labels['train'])} training images: number the classes without gaps."
            )
        self._parts = [(file, part) for file in NAMES for part in self._parts_of(file, pairs, labels)]
        self.parts = [file for file, _ in self._parts]
        used = [(file, *images[:3], images.checksum, label.checksum) for file, (images, label) in pairs.items()]
        self.identity = hashlib.sha256(repr(used).encode()).hexdigest()

    def _parts_of(
        self, file: str, pairs: dict[str, tuple[Member, Member]], labels: dict[str, np.ndarray]
    ) -> Sequence[Part]:
        origin = file if file in pairs else "train"
        chosen = np.ones(len(labels[origin]), bool)
        if "test" not in pairs:
            chosen = tenth_of_each_class(labels["train"]) == (file == "test")
        step = max(1, PART_BYTES // int(np.prod(self.image_shape)))
        return [
            Part(pairs[origin][0], i, labels[origin][i : i + step], chosen[i : i + step])
            for i in range(0, len(chosen), step)
        ]

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[n, H, W, C]` and labels `[n]`."""
        _, (member, start, labels, chosen) = self._parts[part]
        size = int(np.prod(self.image_shape))
        try:
            stream = self._stream_at(member, start * size)
            content = stream.read(len(labels) * size)
            self._position = (member.name, (start + len(labels)) * size)
            images = np.frombuffer(content, np.uint8).reshape(len(labels), *self.image_shape)
        except UNREADABLE as error:
            raise UserError(f"{member.name} in {self._path} cannot be read ({error}): the file is corrupt.") from None
        return images[chosen], labels[chosen]

    def _stream_at(self, member: Member, offset: int) -> IO[bytes]:
        """The bytes of an array from `offset` on; reads of consecutive parts share a stream, which cannot seek back."""
        if self._stream is None or self._position != (member.name, offset):
            archive = zipfile.ZipFile(self._path)  # closed with the stream, by the next part or the end
            self._stream = archive.open(f"{member.name}.npy")
            _header(self._stream)
            self._stream.seek(offset, 1)
        return self._stream


def _members(path: Path) -> dict[str, Member]:
    try:
        with zipfile.ZipFile(path) as arrays:
            found = {}
            for info in arrays.infolist():
                with arrays.open(info) as stream:
                    shape, fortran_order, dtype = _header(stream)
                name = info.filename.removesuffix(".npy")
                found[name] = Member(name, shape, dtype, fortran_order, info.CRC)
            return found
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read ({error}): it is no .npz file, or truncated.") from None


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    first = np.lib.format.read_magic(stream) == (1, 0)
    return (np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0)(stream)


def _pair(path: Path, members: dict[str, Member], names: Sequence[tuple[str, str]]) -> tuple[Member, Member] | None:
    for images, labels in names:
        if images in members and labels in members:
            found = members[images], members[labels]
            if found[0].dtype != np.uint8 or found[0].fortran_order or len(found[0].shape) not in (3, 4):
                raise UserError(
                    f"{images} in {path} is {found[0].dtype} of shape {list(found[0].shape)}, but uint8 images of shape "
                    "[n, height, width, channels] or [n, height, width] are needed, in C order."
                )
            if found[1].dtype.kind not in "iu" or int(np.prod(found[1].shape)) != found[0].shape[0]:
                raise UserError(
                    f"{labels} in {path} is {found[1].dtype} of shape {list(found[1].shape)}, but an integer for each of "
                    f"the {found[0].shape[0]} images of {images} is needed."
                )
            return found
    return None


def _image_shape(path: Path, images: Sequence[Member]) -> tuple[int, int, int]:
    shapes = {member.shape[1:] if len(member.shape) == 4 else (*member.shape[1:], 1) for member in images}
    if len(shapes) > 1 or next(iter(shapes))[2] not in (1, 3):
        raise UserError(
            f"the images in {path} have the shapes {sorted(shapes)}, but one shape with 1 or 3 channels is needed."
        )
    height, width, channels = shapes.pop()
    return height, width, channels


def _labels(path: Path, images: Member, labels: Member) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[labels.name].reshape(images.shape[0]).astype(np.int64)
    except UNREADABLE as error:
        raise UserError(f"{labels.name} in {path} cannot be read ({error}): the file is corrupt.") from None


def tenth_of_each_class(labels: np.ndarray) -> np.ndarray:
    """[n] bool: the first of each ten images of a class."""
    rank = np.empty(len(labels), np.int64)
    order = np.argsort(labels, kind="stable")
    begin = np.concatenate([[True], labels[order][1:] != labels[order][:-1]])
    first = np.maximum.accumulate(np.where(begin, np.arange(len(labels)), 0))
    rank[order] = np.arange(len(labels)) - first
    return rank % HELD_OUT == 0
