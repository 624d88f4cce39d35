"""Parquet files with a column of encoded images as a source for a class store.

Rows are read in their order, a few at a time: a file of any size needs the memory of one part and of the largest page in
it, which hubs write with a hundred images. Labels are read first, because they decide which rows belong to which class.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.data.class_store import FILES, LEAST, too_small
from common.data.images import UNDECODABLE, decode_any, reason, size_of
from common.data.npz_source import tenth_of_each_class
from common.data.parquet_columns import UNREADABLE, Columns, brief, find_columns, label_kind, open_file
from common.data.parquet_files import HELD_OUT, TRAIN, Shards, find_shards
from common.errors import UserError

PART_BYTES = 64 * 2**20  # of the decoded images that are in memory together
ROWS = 32  # whose encoded images are in memory together
PROBED = 10  # images of a file whose headers decide the shape
UNLABELLED = -1  # competitions do not publish the labels of their test images


class Labels(NamedTuple):
    """The labels of all rows of one file."""

    path: Path
    labels: np.ndarray  # int64 [n]; negative: the row is not used

    def used(self) -> bool:
        return bool((self.labels >= 0).any())


class Part(NamedTuple):
    """Consecutive rows of one file."""

    path: Path
    start: int
    labels: np.ndarray  # int64 [n]; negative: the row is not used


class Parquet:
    """The images of a set of Parquet files (common.data.prepare.Source), resized to one shape."""

    first_label = 0

    def __init__(self, place: Path, size: int | None = None, label: str | None = None):
        """Opens the file or the folder of files `place`.

        Args:
          size: height and width of the images; None: their own, if they agree.
          label: name of the column of labels; None: it is found.

        Raises UserError when the files are incomplete or corrupt, or have no images, labels or common size.
        """
        self.rejected: dict[str, str] = {}
        self.description = f"the images in {place}"
        self._stream: tuple[Path, int, Iterator[tuple[Any, Any]]] | None = None  # file, next row, what follows
        shards = find_shards(place)
        self._columns = find_columns(shards.splits[TRAIN][0], label)
        for path in shards.others:
            self.rejected[str(path)] = (
                "a file of another data set, or with neither train, test nor validation in its name"
            )
        by_file = self._labelled(shards)
        self.image_shape = (size, size, 3) if size is not None else self._probed(place, shards.splits[TRAIN])
        step = max(1, PART_BYTES // int(np.prod(self.image_shape)))
        self._parts = [
            (file, Part(path, start, labels[start : start + step]))
            for file, found in by_file.items()
            for path, labels in found
            for start in range(0, len(labels), step)
            if (labels[start : start + step] >= 0).any()
        ]
        self.parts = [file for file, _ in self._parts]
        self.identity = self._identity(place)

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[n, H, W, 3]` and labels `[n]` of the images that can be decoded; the others go to `rejected`."""
        path, start, all_labels = self._parts[part][1]
        images, labels = [], []
        for row, label in enumerate(all_labels, start):
            encoded, name = self._row(path, row)
            if label < 0:
                continue
            try:
                if encoded is None:
                    raise ValueError("it has no bytes in the file")
                images.append(decode_any(io.BytesIO(encoded), self.image_shape))
                labels.append(label)
            except UNDECODABLE as error:
                self.rejected[f"{path}, row {row}{name}"] = reason(error)
        return np.array(images, np.uint8).reshape(-1, *self.image_shape), np.array(labels, np.int64)

    def _row(self, path: Path, row: int) -> tuple[bytes | None, str]:
        """The encoded image of a row, and what to call it. Consecutive rows share a stream, which cannot go back."""
        if self._stream is None or self._stream[:2] != (path, row):
            self._stream = path, row, _rows(path, row, self._columns.image)
        rows = self._stream[2]
        try:
            encoded, name = next(rows)
        except StopIteration:
            raise UserError(f"{path} changed while it was read: run the same command again.") from None
        self._stream = path, row + 1, rows
        return encoded, f" ({name})" if name else ""

    def _probed(self, place: Path, paths: list[Path]) -> tuple[int, int, int]:
        sizes = set()
        for path in paths[:: max(1, len(paths) // PROBED)]:
            for _, (encoded, _) in zip(range(PROBED), _rows(path, 0, self._columns.image)):
                sizes.add(size_of(io.BytesIO(encoded)) if encoded is not None else None)
        if len(known := [size for size in sizes if size is not None]) != 1:
            raise UserError(
                f"the images in {place} differ in size, or cannot be read: give the size that they are resized to, with --size."
            )
        return (*known[0], 3)

    def _labelled(self, shards: Shards) -> dict[str, list[Labels]]:
        """The labels of the rows per file of the store; -1 for rows that are not used."""
        raw = {
            split: [(path, _labels(path, self._columns)) for path in paths] for split, paths in shards.splits.items()
        }
        names = _names(self._columns, [labels for _, labels in raw[TRAIN]])
        numbered = {s: [Labels(p, self._numbered(p, labels, names)) for p, labels in found] for s, found in raw.items()}
        labelled = [split for split in HELD_OUT if any(found.used() for found in numbered.get(split, []))]
        if unlabelled := [split for split in HELD_OUT if split in numbered and split not in labelled]:
            self.description += f" ({', '.join(unlabelled)} has no labels)"
        train = numbered[TRAIN]
        pair = (train, numbered[labelled[0]]) if labelled else _split(train)
        return self._without_small_classes(dict(zip(FILES, pair)), names)

    def _numbered(self, path: Path, labels: pa.Array, names: pa.Array) -> np.ndarray:
        """Positions in `names`. Raises UserError on labels that are not there."""
        if self._columns.names is None:
            found = pc.fill_null(pc.index_in(labels, names), UNLABELLED).to_numpy().astype(np.int64)
            missing = _missing(labels)
        else:
            found = pc.fill_null(labels, UNLABELLED).to_numpy()
            missing = found < 0
            found = np.where(found < len(self._columns.names), found, UNLABELLED)
        unknown = np.flatnonzero((found < 0) & ~missing)
        if len(unknown):
            raise UserError(
                f"{path} has the label {labels[int(unknown[0])].as_py()!r} (row {unknown[0]}), which is not among the "
                f"{len(names)} classes of the training images: the files are of different data sets."
            )
        if 0 < missing.sum() < len(missing):
            self.rejected[f"{path}, {missing.sum()} rows"] = "images without a label"
        return found

    def _without_small_classes(self, files: dict[str, list[Labels]], names: pa.Array) -> dict[str, list[Labels]]:
        counts = {
            file: np.bincount(np.concatenate([f.labels[f.labels >= 0] for f in found]), minlength=len(names))
            for file, found in files.items()
        }
        enough = np.array([counts[file] >= least for file, least in LEAST.items()]).all(axis=0)
        if not enough.any():
            raise UserError(f"{self.description}: no class has two training images and a test image.")
        for cls in np.flatnonzero(~enough):
            self.rejected[str(names[int(cls)])] = too_small({file: int(found[cls]) for file, found in counts.items()})
        self.names: list[str] | None = [str(names[int(cls)]) for cls in np.flatnonzero(enough)]
        self.classes = int(enough.sum())
        renumbered = np.append(
            np.where(enough, np.cumsum(enough) - 1, UNLABELLED), UNLABELLED
        )  # the last one is for -1
        return {file: [Labels(f.path, renumbered[f.labels]) for f in found] for file, found in files.items()}

    def _identity(self, place: Path) -> str:
        """Of names, sizes and times of all files, and of the parts: the content is not read."""
        digest = hashlib.sha256(repr((self.image_shape, self._columns, len(self._parts))).encode())
        for path in dict.fromkeys(part.path for _, part in self._parts):
            status, name = path.stat(), os.fsencode(path.relative_to(place if place.is_dir() else place.parent))
            digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()


def _rows(path: Path, start: int, column: str) -> Iterator[tuple[bytes | None, str]]:
    """Encoded image and original name of each row from `start` on. Raises UserError when the file is corrupt."""
    file, group, skipped = open_file(path), 0, 0
    while group < file.num_row_groups and skipped + file.metadata.row_group(group).num_rows <= start:
        skipped += file.metadata.row_group(group).num_rows
        group += 1
    try:
        groups = list(range(group, file.num_row_groups))
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=[column], use_threads=False):
            for value in batch.column(0).slice(max(0, min(start - skipped, len(batch)))).to_pylist():
                if isinstance(value, dict):
                    yield value.get("bytes"), str(value.get("path") or "")
                else:
                    yield value, ""
            skipped += len(batch)
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read ({brief(error)}): the file is corrupt.") from None


def _labels(path: Path, columns: Columns) -> pa.Array:
    """int64 or string `[n]`. Raises UserError when the file does not have the columns of the first one."""
    file = open_file(path)
    schema = file.schema_arrow
    if (
        not {columns.image, columns.label} <= set(schema.names)
        or label_kind(schema.field(columns.label)) != columns.kind
    ):
        raise UserError(
            f"{path} does not have the columns {columns.image} and {columns.label} ({columns.kind}) of the first file: "
            "the files are of different data sets."
        )
    try:
        labels = file.read(columns=[columns.label], use_threads=False).column(0).combine_chunks()
        if pa.types.is_dictionary(labels.type):
            labels = labels.dictionary_decode()
        return labels.cast(columns.kind)
    except UNREADABLE as error:
        raise UserError(f"the labels in {path} cannot be read ({brief(error)}): the file is corrupt.") from None


def _names(columns: Columns, labels: list[pa.Array]) -> pa.Array:
    """The classes in their order: those that the metadata name, or the sorted labels of the training images."""
    if columns.names is not None:
        return pa.array(columns.names)
    found = pc.unique(pa.chunked_array(labels)).drop_null()
    if pa.types.is_integer(found.type):
        found = found.filter(pc.greater_equal(found, 0))
    return found.take(pc.array_sort_indices(found))


def _missing(labels: pa.Array) -> np.ndarray:
    """[n] bool: rows without a label."""
    negative = pc.less(labels, 0) if pa.types.is_integer(labels.type) else labels.is_null()
    return pc.fill_null(negative, True).to_numpy(zero_copy_only=False)


def _split(train: list[Labels]) -> tuple[list[Labels], list[Labels]]:
    """Training and test rows, of which there are a tenth of each class."""
    chosen = tenth_of_each_class(np.concatenate([found.labels for found in train]))
    pieces = np.split(chosen, np.cumsum([len(found.labels) for found in train])[:-1])
    return (
        [Labels(f.path, np.where(piece, UNLABELLED, f.labels)) for f, piece in zip(train, pieces)],
        [Labels(f.path, np.where(piece, f.labels, UNLABELLED)) for f, piece in zip(train, pieces)],
    )
