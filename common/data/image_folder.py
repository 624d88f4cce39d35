"""A folder of class folders as a source for a class store, by the convention of torchvision and Keras.

The class of an image is the name of its folder. Where the folder has train/ and test/ or val/, these hold the class
folders; otherwise a tenth of each class, chosen by a hash of its file names, is held out as test images.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.data.class_store import LEAST, too_small
from common.data.images import UNDECODABLE, decode_any, reason, size_of
from common.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
HELD_OUT = ("test", "val", "valid", "validation")  # the first of these that is there holds the test images
HELD_OUT_FRACTION = 0.1
PART_BYTES = 64 * 2**20  # of the images that are in memory together
PROBED = 100  # images whose headers decide the shape


class Layout(NamedTuple):
    """The image files of each class, per file of the store; classes are sorted by name."""

    files: dict[str, dict[str, list[Path]]]  # "train" or "test" -> class -> paths
    left_out: dict[str, str]  # class -> why it is not used


class ImageFolder:
    """The images of a layout (common.data.prepare.Source), resized to one shape."""

    first_label = 0

    def __init__(self, folder: Path, layout: Layout, shape: tuple[int, int, int]):
        self.description = f"the images in {folder}"
        self.image_shape = shape
        self.names: list[str] | None = list(layout.files["train"])
        self.classes = len(layout.files["train"])
        self.rejected: dict[str, str] = {name: why for name, why in layout.left_out.items()}
        self._parts: list[tuple[str, list[tuple[Path, int]]]] = []
        step = max(1, PART_BYTES // int(np.prod(shape)))
        for file, classes in layout.files.items():
            examples = [(path, label) for label, name in enumerate(layout.files["train"]) for path in classes[name]]
            self._parts += [(file, examples[i : i + step]) for i in range(0, len(examples), step)]
        self.parts = [file for file, _ in self._parts]
        self.identity = _identity(folder, shape, self._parts)

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[n, H, W, 3]` and labels `[n]` of the images that can be decoded; the others go to `rejected`."""
        images, labels = [], []
        for path, label in self._parts[part][1]:
            try:
                images.append(decode_any(path, self.image_shape))
                labels.append(label)
            except UNDECODABLE as error:
                self.rejected[str(path)] = reason(error)
        return np.array(images, np.uint8).reshape(-1, *self.image_shape), np.array(labels, np.int64)


def find_layout(folder: Path) -> Layout | None:
    """The layout of `folder`, None when it has no class folders. Raises UserError when train and test do not match."""
    splits = {path.name.lower(): path for path in _folders(folder)}
    train = _classes(splits["train"]) if "train" in splits else {}
    if not any(train.values()):
        classes = _classes(folder)
        return _held_out(classes) if any(classes.values()) else None
    held_out = next(
        (splits[name] for name in HELD_OUT if name in splits and any(_classes(splits[name]).values())), None
    )
    if held_out is None:
        return _held_out(train)
    test = _classes(held_out)
    if unknown := sorted(name for name, paths in test.items() if paths and not train.get(name)):
        raise UserError(
            f"{held_out} has classes that {splits['train']} has not ({_some(unknown)}): rename or remove them."
        )
    return _enough({"train": train, "test": {name: test.get(name, []) for name in train}})


def open_image_folder(folder: Path, layout: Layout, size: int | None = None) -> ImageFolder:
    """The images of `layout` in `folder`, resized to `size` where given. Raises UserError when they need a size."""
    if not layout.files["train"]:
        least = sum(LEAST.values())
        raise UserError(
            f"no class in {folder} has {least} images or more: add images, or test images in {folder}/test."
        )
    if size is not None:
        return ImageFolder(folder, layout, (size, size, 3))
    paths = [path for classes in layout.files.values() for paths in classes.values() for path in paths]
    sizes = {size_of(path) for path in paths[:: max(1, len(paths) // PROBED)]} - {None}
    if len(sizes) != 1:
        raise UserError(f"the images in {folder} differ in size: give the size that they are resized to, with --size.")
    height, width = next(size for size in sizes if size is not None)
    return ImageFolder(folder, layout, (height, width, 3))


def _folders(folder: Path) -> list[Path]:
    """Sub-folders by name; hidden ones and those of file managers are no classes."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__", "@")))


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The image files of each sub-folder, in any depth; links to files are followed, links to folders below are not."""
    return {path.name: sorted(_images(path)) for path in _folders(folder)}


def _images(folder: Path) -> Iterable[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, n) for n in names if Path(n).suffix.lower() in SUFFIXES and not n.startswith("."))


def _held_out(classes: dict[str, list[Path]]) -> Layout:
    """A tenth of each class, at least one image, becomes its test images."""
    train, test = {}, {}
    for name, paths in classes.items():
        order = sorted(paths, key=lambda path: hashlib.blake2b(path.name.encode("utf-8", "surrogateescape")).digest())
        count = max(LEAST["test"], round(HELD_OUT_FRACTION * len(order)))
        test[name], train[name] = sorted(order[:count]), sorted(order[count:])
    return _enough({"train": train, "test": test})


def _enough(files: dict[str, dict[str, list[Path]]]) -> Layout:
    """Leaves out classes with too few images of a split."""
    left_out = {}
    for name in files["train"]:
        found = {file: len(files[file][name]) for file in LEAST}
        if any(found[file] < least for file, least in LEAST.items()):
            left_out[name] = too_small(found)
    kept = {file: {n: paths for n, paths in classes.items() if n not in left_out} for file, classes in files.items()}
    return Layout(kept, left_out)


def _identity(folder: Path, shape: tuple[int, int, int], parts: Sequence[tuple[str, list[tuple[Path, int]]]]) -> str:
    """Of names, labels, sizes and times of all files: their content is not read."""
    digest = hashlib.sha256(repr(shape).encode())
    for file, examples in parts:
        for path, label in examples:
            name = os.fsencode(path.relative_to(folder))
            digest.update(repr((file, label, name, *_size_and_time(path))).encode())
    return digest.hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:  # a link to nothing, which is left out when it is read
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
