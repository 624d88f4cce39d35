"""The class store: a folder of uint8 images sorted by class, memory-mapped, so that all readers share the page cache.

`train.bin` and `test.bin` hold the images `[n, H, W, C]` of all classes one after the other; `header.json` holds where
each class begins. Within a class, images are in the order of their hash: the same content gives the same store whatever
it was read from, and the last part of a class's training images, its inner-valid split, is a random one.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError

SCHEMA = 1
HEADER = "header.json"
FILES = ("train", "test")  # a store has a file NAME.bin for each


@dataclass(frozen=True)
class Header:
    """What stands in header.json."""

    source: str  # for people: what the store was made from
    identity: str  # the source's, so that preparing it again is noticed
    image_shape: tuple[int, int, int]  # height, width, channels
    offsets: dict[str, list[int]]  # per file, classes + 1 numbers: class c is images offsets[c] .. offsets[c + 1] - 1
    fingerprint: str  # sha256 of shape, offsets and images
    schema: int = SCHEMA

    @property
    def classes(self) -> int:
        return len(self.offsets["train"]) - 1


class ClassStore:
    """A dataset (common.data.dataset.Dataset) read from a class store.

    The inner-valid split is the last `valid_fraction` of each class's training images, at least one of them.
    """

    def __init__(self, folder: Path, valid_fraction: float):
        header = read_header(folder)
        self.image_shape = header.image_shape
        self.classes = header.classes
        self.fingerprint = hashlib.sha256(f"{header.fingerprint} {valid_fraction!r}".encode()).hexdigest()
        starts = {name: np.asarray(header.offsets[name]) for name in FILES}
        self._files = {name: map_images(folder, header, name) for name in FILES}
        counts = np.diff(starts["train"])
        valid = np.clip(np.round(valid_fraction * counts).astype(int), 1, counts - 1)
        border = starts["train"][1:] - valid
        self._ranges = {
            "train": ("train", starts["train"][:-1], border),
            "valid": ("train", border, starts["train"][1:]),
            "test": ("test", starts["test"][:-1], starts["test"][1:]),
        }

    def max_count(self, split: str) -> int:
        """The largest number of images that a class has in this inner split."""
        _, begin, end = self._ranges[split]
        return int((end - begin).max())

    def images(self, cls: int, split: str) -> np.ndarray:
        """uint8 `[n, H, W, C]`, a read-only view of the file."""
        if not 0 <= cls < self.classes:
            raise IndexError(f"class {cls} of {self.classes}")
        name, begin, end = self._ranges[split]
        return self._files[name][begin[cls] : end[cls]]


def read_header(folder: Path) -> Header:
    """The checked header of the store in `folder`. Raises UserError when there is none, or a foreign one."""
    path = folder / HEADER
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is no class store, it has no {HEADER}: make one with `outertrain data prepare`, "
            "or correct dataset.path."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): prepare the store again.") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{path} is not a header of schema {SCHEMA}: prepare the store again with this version.")
    try:
        header = Header(**{**content, "image_shape": tuple(content["image_shape"])})
        sound = all(_sound(header.offsets[name], header.classes, least) for name, least in (("train", 2), ("test", 1)))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): prepare the store again.") from None
    if not sound:
        raise UserError(f"{path} is damaged (its offsets do not divide classes): prepare the store again.")
    return header


def _sound(offsets: list[int], classes: int, least: int) -> bool:
    return len(offsets) == classes + 1 and offsets[0] == 0 and bool((np.diff(offsets) >= least).all())


def write_header(folder: Path, header: Header) -> Path:
    """Writes header.json and returns its path."""
    path = folder / HEADER
    path.write_text(json.dumps(asdict(header), sort_keys=True) + "\n")
    return path


def map_images(folder: Path, header: Header, name: str, mode: str = "r") -> np.ndarray:
    """The memory map `[n, H, W, C]` of file `name`. Raises UserError when the file is not as long as it must be."""
    path = folder / f"{name}.bin"
    shape = (header.offsets[name][-1], *header.image_shape)
    size, expected = (path.stat().st_size if path.exists() else 0), int(np.prod(shape))
    if size != expected:
        raise UserError(f"{path} has {size:,} bytes instead of {expected:,}: it was cut, prepare the store again.")
    return np.memmap(path, np.uint8, mode, shape=shape)  # type: ignore[call-overload]
