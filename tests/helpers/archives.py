"""Small archives in the official format of downsampled ImageNet: 1,000 classes, few random images of each."""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLASSES, BATCHES = 1000, 10


class Content(NamedTuple):
    """What the archives hold, per file of a class store ("train", "test"): uint8 `[n, H, W, C]`, labels from 0."""

    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def write_archives(folder: Path, size: int = 8, train: int = 3, test: int = 1, seed: int = 0) -> Content:
    """Writes Imagenet{size}_train_npz.zip and _val_npz.zip, with `train` and `test` images of each class, shuffled."""
    rng = np.random.default_rng(seed)
    images, labels = {}, {}
    for name, count in (("train", train), ("test", test)):
        labels[name] = rng.permutation(np.repeat(np.arange(CLASSES), count))
        images[name] = rng.integers(0, 256, (CLASSES * count, size, size, 3), dtype=np.uint8)
    content = Content(images, labels)
    pieces = np.array_split(np.arange(CLASSES * train), BATCHES)
    batches = {f"train_data_batch_{i}.npz": batch(content, "train", piece) for i, piece in enumerate(pieces, 1)}
    write_zip(folder / f"Imagenet{size}_train_npz.zip", batches)
    write_zip(folder / f"Imagenet{size}_val_npz.zip", {"val_data.npz": batch(content, "test", slice(None))})
    return content


def batch(content: Content, name: str, chosen: np.ndarray | slice) -> bytes:
    """One npz file: planar pixels, labels from 1, and in a training batch the mean image."""
    planar = content.images[name][chosen].transpose(0, 3, 1, 2).reshape(len(content.images[name][chosen]), -1)
    arrays = {"data": planar, "labels": content.labels[name][chosen] + 1}
    if name == "train":
        arrays["mean"] = planar.mean(axis=0)
    return npz(**arrays)


def npz(**arrays: np.ndarray) -> bytes:
    """`np.savez` into memory."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """An archive of these members, stored as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def read_zip(path: Path) -> dict[str, bytes]:
    """The members of an archive, to be changed and written again."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
