"""The Parquet files of an image data set as hubs serve it: which file is of which split.

The split of a file is the first word of its name (`train-00000-of-00005.parquet`) or of a folder on its path
(`default/train/0000.parquet`). Only names are read here.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError

TRAIN = "train"
HELD_OUT = ("test", "validation")  # the first of these that has labels holds the test images
SPLITS = {"train": TRAIN, "training": TRAIN, "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "validation"
)
SHARD = re.compile(r"(.+)-(\d{5,})-of-(\d{5,})(?:-[0-9a-f]+)?\.parquet")
DEPTH = 3  # folders between the given one and a file, at most


class Shards(NamedTuple):
    """The files of a set."""

    splits: dict[str, list[Path]]  # "train", "test", "validation" -> files in their order
    others: list[Path]  # of no known split, where others are of one


def has_parquet(folder: Path) -> bool:
    """Whether there are Parquet files in `folder` or a few levels below it."""
    return next(_files(folder), None) is not None


def find_shards(place: Path) -> Shards:
    """The files of the set in the file or folder `place`. Raises UserError when they are of several sets, or one is missing."""
    if place.is_file():
        return Shards({TRAIN: [place]}, [])
    paths = sorted(_files(place))
    _check_complete(paths)
    known = [(path, *found) for path in paths if (found := _split(path.relative_to(place)))]
    if not known:
        return Shards({TRAIN: paths}, [])
    sets = sorted({folder for _, split, folder in known if split == TRAIN})
    if len(sets) > 1:
        folders = ", ".join(str(place / folder) for folder in sets[:5])
        raise UserError(f"{place} holds several data sets: give the folder of one of them ({folders}).")
    if not sets:
        raise UserError(f"{place} has Parquet files of the splits test and validation only: add those of train.")
    splits: dict[str, list[Path]] = {}
    for path, split, folder in known:
        if folder == sets[0]:
            splits.setdefault(split, []).append(path)
    used = {path for files in splits.values() for path in files}
    return Shards(splits, [path for path in paths if path not in used])


def _files(folder: Path) -> Iterator[Path]:
    """Hidden files and folders are those of tools."""
    for parent, folders, names in os.walk(folder):
        depth = len(Path(parent).relative_to(folder).parts)
        folders[:] = [name for name in folders if depth < DEPTH and not name.startswith(".")]
        yield from (Path(parent, n) for n in names if n.lower().endswith(".parquet") and not n.startswith("."))


def _split(path: Path) -> tuple[str, Path] | None:
    """The split of a file, by its path inside the set, and the folder of the set to which it belongs."""
    for depth, name in reversed(list(enumerate(path.parts))):
        if split := SPLITS.get(re.split(r"[^a-z]", name.lower(), maxsplit=1)[0]):
            return split, Path(*path.parts[:depth])
    return None


def _check_complete(paths: Sequence[Path]) -> None:
    """Raises UserError when a file of a numbered series is missing."""
    series: dict[tuple[Path, int], set[int]] = {}
    for path in paths:
        if match := SHARD.fullmatch(path.name):
            stem, number, count = match.groups()
            series.setdefault((path.parent / stem, int(count)), set()).add(int(number))
    for (stem, count), numbers in series.items():
        if missing := sorted(set(range(count)) - numbers):
            raise UserError(
                f"{len(missing)} of {count} files {stem}-*.parquet are missing (the first is number {missing[0]}): fetch them."
            )
