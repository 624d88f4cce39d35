"""The official batches of downsampled ImageNet as a source for a class store, from their archives or unpacked.

Chrabaszcz et al. 2017 (arXiv 1707.08819): `Imagenet32_train_npz.zip` holds train_data_batch_1.npz .. 10, and
`Imagenet32_val_npz.zip` holds val_data.npz; each has "data", uint8 `[n, 3 * 32 * 32]`, channel planes first, and
"labels" from 1 to 1000. There are sizes 8, 16, 32 and 64; the last has its training batches in two archives.
"""

import hashlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from common.errors import UserError

CLASSES = 1000
BATCHES = 10
ARCHIVE = re.compile(r"Imagenet(8|16|32|64)_(train|val)(_part[12])?_npz\.zip")
BATCH = re.compile(r"(train_data_batch|val_data)(?:_(\d+))?\.npz")
SPLIT_OF_STEM = {"train_data_batch": "train", "val_data": "test"}
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError)


@dataclass(frozen=True)
class Batch:
    """One npz file of labelled images: a member of an archive, or an unpacked file."""

    split: str  # file of the class store: "train" or "test"
    number: int  # 1 .. BATCHES; 0 for the validation images
    name: str  # for error messages
    path: Path  # the archive, or the npz file itself
    member: zipfile.ZipInfo | None  # None: `path` is the npz file
    checksum: tuple[int, ...]  # size in bytes, and CRC-32 of the content

    def content(self) -> io.BufferedIOBase:
        """The bytes of the npz file."""
        if self.member is None:
            return self.path.open("rb")
        with zipfile.ZipFile(self.path) as archive:
            return io.BytesIO(archive.read(self.member))


class Archives:
    """The batches of one image size (common.data.prepare.Source); a part is a batch, in memory while it is read."""

    classes = CLASSES
    first_label = 1

    def __init__(self, folder: Path, size: int, batches: Sequence[Batch]):
        self.description = f"the Imagenet{size} archives in {folder}"
        self.image_shape = (size, size, 3)
        self.rejected: dict[str, str] = {}
        self.names: list[str] | None = None
        self.parts = [batch.split for batch in batches]
        self._batches = batches
        content = [(batch.split, *batch.checksum) for batch in batches]
        self.identity = hashlib.sha256(repr((size, content)).encode()).hexdigest()

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[n, H, W, C]` and labels `[n]`, as stored in the batch."""
        batch = self._batches[part]
        try:
            with batch.content() as content, np.load(content, allow_pickle=False) as arrays:
                pixels, labels = arrays["data"], arrays["labels"]
            size = self.image_shape[0]
            return pixels.reshape(len(pixels), 3, size, size).transpose(0, 2, 3, 1), labels
        except _UNREADABLE as error:
            raise UserError(f"{batch.name} cannot be read ({error}): it is corrupt, download it again.") from None


def find_batches(folder: Path) -> dict[int, list[Batch]]:
    """The official batches in `folder`, by image size; one that is there unpacked too is taken from its archive.

    Unpacked files may lie in sub-folders of `folder`, one for each archive. Raises UserError when an archive or a file
    is truncated.
    """
    batches: dict[int, list[Batch]] = {}
    for path in sorted(folder.glob("Imagenet*_npz.zip")):
        if match := ARCHIVE.fullmatch(path.name):
            batches.setdefault(int(match[1]), []).extend(_members(path))
    archived = {(size, batch.split, batch.number) for size, members in batches.items() for batch in members}
    for path in sorted([*folder.glob("*.npz"), *folder.glob("*/*.npz")]):
        if found := _split_and_number(path.name):
            size, checksum = _inspect(path)
            if (size, *found) not in archived:
                batches.setdefault(size, []).append(Batch(*found, str(path), path, None, checksum))
    return batches


def open_archives(folder: Path, size: int | None = None) -> Archives:
    """The batches in `folder`, of images of width `size` (needed only if the folder holds several sizes).

    Raises UserError when there are none of that size, or one is missing or truncated.
    """
    found = find_batches(folder)
    if not found:
        raise UserError(
            f"{folder} holds none of the official archives, for example Imagenet32_train_npz.zip and "
            "Imagenet32_val_npz.zip: download them from image-net.org (downsampled ImageNet, npz format) into it."
        )
    if size is None and len(found) > 1:
        sizes = ", ".join(str(one) for one in sorted(found))
        raise UserError(f"{folder} holds images of sizes {sizes}: choose one with --size.")
    size = size or next(iter(found))
    if size not in found:
        sizes = ", ".join(str(one) for one in sorted(found))
        raise UserError(
            f"{folder} holds images of size {sizes}, not {size}: leave --size out, or download size {size}."
        )
    return Archives(folder, size, _complete(folder, size, found[size]))


def _complete(folder: Path, size: int, batches: Sequence[Batch]) -> list[Batch]:
    """The batches in their order. Raises UserError unless each of them is there once."""
    expected = [("train", n) for n in range(1, BATCHES + 1)] + [("test", 0)]
    ordered = sorted(batches, key=lambda batch: expected.index((batch.split, batch.number)))
    present = [(batch.split, batch.number) for batch in ordered]
    if present != expected:
        missing = [f"batch {n} of {split}" for split, n in expected if (split, n) not in present]
        raise UserError(
            f"the Imagenet{size} data in {folder} have {len(present)} batches instead of {BATCHES} training batches "
            f"and val_data.npz ({'missing: ' + ', '.join(missing) if missing else 'some are there twice'}): "
            "download the official archives again."
        )
    return ordered


def _members(path: Path) -> list[Batch]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} cannot be opened ({error}): it is truncated, download it again.") from None
    if entries and min(info.header_offset for info in entries) > 0:
        # The directory that was found is that of the last complete batch, itself a zip file, not the archive's own.
        raise UserError(f"{path} has lost its end: it is truncated, download it again.")
    return [
        Batch(*found, f"{info.filename} in {path}", path, info, (info.file_size, info.CRC))
        for info in entries
        if (found := _split_and_number(PurePosixPath(info.filename).name))
    ]


def _split_and_number(name: str) -> tuple[str, int] | None:
    """("train", 3) for train_data_batch_3.npz, ("test", 0) for val_data.npz, None for another file."""
    match = BATCH.fullmatch(name)
    if match is None:
        return None
    split, number = SPLIT_OF_STEM[match[1]], int(match[2] or 0)
    return (split, number) if (number in range(1, BATCHES + 1)) == (split == "train") else None


def _inspect(path: Path) -> tuple[int, tuple[int, ...]]:
    """Width of the images of an unpacked batch, and its checksum, from its headers alone."""
    try:
        with zipfile.ZipFile(path) as arrays, arrays.open("data.npy") as data:
            first = np.lib.format.read_magic(data) == (1, 0)
            read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            shape, _, _ = read_header(data)
            size = math.isqrt(shape[1] // 3)
            return size, (path.stat().st_size, *(info.CRC for info in arrays.infolist()))
    except (*_UNREADABLE, IndexError) as error:
        raise UserError(f"{path} cannot be read ({error}): it is corrupt, unpack its archive again.") from None
