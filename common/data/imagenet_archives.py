"""The official archives of downsampled ImageNet, as a source for a class store.

Chrabaszcz et al. 2017 (arXiv 1707.08819): `Imagenet32_train_npz.zip` holds train_data_batch_1.npz .. 10, and
`Imagenet32_val_npz.zip` holds val_data.npz; each has "data", uint8 `[n, 3 * 32 * 32]`, channel planes first, and
"labels" from 1 to 1000. There are sizes 8, 16, 32 and 64; the last has its training batches in two archives.
"""

import hashlib
import io
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from common.errors import UserError

CLASSES = 1000
BATCHES = 10
_NAME = re.compile(r"Imagenet(8|16|32|64)_(train|val)(_part[12])?_npz\.zip")


class Archives:
    """The archives of one image size (common.data.prepare.Source); one part is one batch, in memory while it is read."""

    classes = CLASSES
    first_label = 1

    def __init__(self, folder: Path, size: int, members: list[tuple[str, Path, zipfile.ZipInfo]]):
        self.description = f"the Imagenet{size} archives in {folder}"
        self.image_shape = (size, size, 3)
        self.parts = [name for name, _, _ in members]
        self._members = members
        content = [(name, info.file_size, info.CRC) for name, _, info in members]
        self.identity = hashlib.sha256(repr((size, content)).encode()).hexdigest()

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[n, H, W, C]` and labels `[n]`, as they stand in the batch."""
        _, archive, info = self._members[part]
        try:
            with zipfile.ZipFile(archive) as outer, np.load(io.BytesIO(outer.read(info)), allow_pickle=False) as batch:
                pixels, labels = batch["data"], batch["labels"]
            size = self.image_shape[0]
            return pixels.reshape(len(pixels), 3, size, size).transpose(0, 2, 3, 1), labels
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{info.filename} in {archive} cannot be read ({error}): the archive is damaged, download it again."
            ) from None


def open_archives(folder: Path, size: int | None = None) -> Archives:
    """The archives in `folder`, of images of width `size` (needed only if the folder holds several).

    Raises UserError when one is missing, truncated, or lacks a batch.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("Imagenet*_npz.zip")):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), []).append(path)
    size = _choose(folder, sorted(found), size)
    members = [member for path in found[size] for member in _batches(path)]
    numbered = sorted(members, key=lambda member: (member[0] == "test", _number(member[2])))
    expected = [("train", n) for n in range(1, BATCHES + 1)] + [("test", 0)]
    present = [(name, _number(info)) for name, _, info in numbered]
    if present != expected:
        lacking = [f"batch {n} of {name}" for name, n in expected if (name, n) not in present]
        raise UserError(
            f"the Imagenet{size} archives in {folder} hold {len(present)} batches instead of {BATCHES} training batches "
            f"and val_data.npz ({', '.join(lacking) or 'some twice'}): download the official archives again."
        )
    return Archives(folder, size, numbered)


def _choose(folder: Path, sizes: list[int], size: int | None) -> int:
    if not sizes or (size is not None and size not in sizes):
        width = size or 32
        raise UserError(
            f"{folder} holds no Imagenet{width}_train_npz.zip and Imagenet{width}_val_npz.zip: download them from "
            "image-net.org (downsampled ImageNet, npz format) into that folder."
        )
    if size is None and len(sizes) > 1:
        raise UserError(f"{folder} holds archives of sizes {', '.join(map(str, sizes))}: choose one image size.")
    return sizes[0] if size is None else size


def _batches(archive: Path) -> list[tuple[str, Path, zipfile.ZipInfo]]:
    try:
        with zipfile.ZipFile(archive) as outer:
            entries = outer.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{archive} cannot be opened ({error}): it is truncated, download it again.") from None
    if entries and min(info.header_offset for info in entries) > 0:
        # What was found is the directory of the last whole batch inside, itself a zip, not that of the archive.
        raise UserError(f"{archive} has lost its end: it is truncated, download it again.")
    kinds = {"train_data_batch_": "train", "val_data": "test"}
    return [
        (kind, archive, info)
        for info in entries
        for prefix, kind in kinds.items()
        if re.fullmatch(prefix + r"\d*\.npz", PurePosixPath(info.filename).name)
    ]


def _number(info: zipfile.ZipInfo) -> int:
    digits = re.sub(r"\D", "", PurePosixPath(info.filename).stem)
    return int(digits) if digits else 0
