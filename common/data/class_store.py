"""The class store: a folder of uint8 images sorted by class, memory-mapped, so that all readers share the page cache.

`train.bin` and `test.bin` hold the images `[n, H, W, C]` of one class after the other; `header.json` holds the offset
of each class. Within a class, images are sorted by their hash, so that the same content gives the same store whatever
its source, and the last images of a class, its inner-valid split, are a random sample of it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from common import files
from common.errors import UserError

SCHEMA = 1
HEADER = "header.json"
FILES = ("train", "test")  # a store has NAME.bin for each
LEAST = {"train": 2, "test": 1}  # images of a class


@dataclass(frozen=True)
class Header:
    """The content of header.json."""

    source: str  # description of the source, for people
    identity: str  # of the source: a store of the same identity is not prepared again
    image_shape: tuple[int, int, int]  # height, width, channels
    offsets: dict[str, list[int]]  # per file [classes + 1]: class c has the images offsets[c] .. offsets[c + 1] - 1
    fingerprint: str  # sha256 of image shape, offsets and images
    schema: int = SCHEMA

    @property
    def classes(self) -> int:
        return len(self.offsets["train"]) - 1


class ClassStore:
    """A dataset (common.data.dataset.Dataset) that is read from a class store."""

    def __init__(self, folder: Path, valid_fraction: float):
        """Opens the store in `folder`.

        Args:
          valid_fraction: the part of each class's training images that is its inner-valid split, at least one image.

        Raises UserError when there is no store, or it is corrupt.
        """
        header = read_header(folder)
        self.image_shape = header.image_shape
        self.classes = header.classes
        self.fingerprint = hashlib.sha256(f"{header.fingerprint} {valid_fraction!r}".encode()).hexdigest()
        starts = {name: np.asarray(header.offsets[name]) for name in FILES}
        self._files = {name: map_images(folder, header, name) for name in FILES}
        counts = np.diff(starts["train"])
        valid = np.clip(np.round(valid_fraction * counts).astype(int), 1, counts - 1)
        boundary = starts["train"][1:] - valid
        self._ranges = {
            "train": ("train", starts["train"][:-1], boundary),
            "valid": ("train", boundary, starts["train"][1:]),
            "test": ("test", starts["test"][:-1], starts["test"][1:]),
        }

    def max_count(self, split: str) -> int:
        """The largest number of images of a class in this inner split."""
        _, begin, end = self._ranges[split]
        return int((end - begin).max())

    def images(self, cls: int, split: str) -> np.ndarray:
        """uint8 `[n, H, W, C]`, a read-only view of the file."""
        if not 0 <= cls < self.classes:
            raise IndexError(f"class {cls} of {self.classes}")
        name, begin, end = self._ranges[split]
        return self._files[name][begin[cls] : end[cls]]


def read_header(folder: Path) -> Header:
    """The header of the store in `folder`. Raises UserError when there is none, or it is corrupt or of another schema."""
    path = folder / HEADER
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is not a class store, because it has no {HEADER}: make one with `outertrain data prepare`, "
            "or correct dataset.path."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): prepare the store again.") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{path} is not a header of schema {SCHEMA}: prepare the store again with this version.")
    try:
        header = Header(**{**content, "image_shape": tuple(content["image_shape"])})
        valid = all(_valid(header.offsets[name], header.classes, least) for name, least in LEAST.items())
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is corrupt ({error}): prepare the store again.") from None
    if not valid:
        raise UserError(f"{path} is corrupt (its offsets do not increase class by class): prepare the store again.")
    return header


def _valid(offsets: list[int], classes: int, least: int) -> bool:
    return len(offsets) == classes + 1 and offsets[0] == 0 and bool((np.diff(offsets) >= least).all())


def too_small(counts: Mapping[str, int]) -> str:
    """Why a class with so many images per file is left out."""
    parts = ", ".join(f"{count} {file}" for file, count in counts.items())
    return f"a class with {sum(counts.values())} images ({parts})"


def write_header(folder: Path, header: Header) -> Path:
    """Writes header.json and returns its path."""
    path = folder / HEADER
    files.replace(path, json.dumps(asdict(header), sort_keys=True) + "\n")
    return path


def map_images(folder: Path, header: Header, name: str, mode: str = "r") -> np.ndarray:
    """The memory map `[n, H, W, C]` of file `name`. Raises UserError when the file does not have the expected size."""
    path = folder / f"{name}.bin"
    shape = (header.offsets[name][-1], *header.image_shape)
    size, expected = (path.stat().st_size if path.exists() else 0), int(np.prod(shape))
    if size != expected:
        raise UserError(f"{path} has {size:,} bytes instead of {expected:,}: it is truncated, prepare the store again.")
    return np.memmap(path, np.uint8, mode, shape=shape)  # type: ignore[call-overload]
