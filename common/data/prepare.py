"""Preparation of a class store from a source of labelled images: checked, resumable, atomic.

The source is read twice, part by part: the first pass checks the images and records the label and the hash of each, the
second writes each image to its place. Finished parts are kept in `<store>.partial`, from which an interrupted preparation
resumes; the last pass compares every written image with its hash, and the finished folder is renamed to the store.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from common import files
from common.data.class_store import FILES, HEADER, LEAST, Header, map_images, read_header, too_small, write_header
from common.errors import UserError

Progress = Callable[[str, int, int], None]  # name of the pass, units done, units in all


class Source(Protocol):
    """Labelled images in parts, each small enough for memory."""

    description: str  # for people
    identity: str  # changes with the content
    image_shape: tuple[int, int, int]  # height, width, channels
    classes: int
    first_label: int  # labels run from here to first_label + classes - 1
    names: list[str] | None  # of the classes, of which small ones are left out; None: all classes must be complete
    rejected: dict[str, str]  # images and classes that were left out: name -> reason; complete after the last read
    parts: list[str]  # the file of the store ("train" or "test") that each part belongs to

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[n, H, W, C]` and integer labels `[n]`. Raises UserError on corrupt data."""
        ...


class _Plan(NamedTuple):
    """The position of each image in the store."""

    header: Header  # with an empty fingerprint
    places: list[np.ndarray]  # per part [n]: positions of its images in their file; -1: of a class that is left out
    keys: dict[str, np.ndarray]  # per file [n]: hash of the image at each position


def prepare(source: Source, store: Path, progress: Progress) -> Header:
    """Makes the class store in the folder `store`, which must not exist, and returns its header.

    A finished store of the same source is left as it is.

    Raises UserError on corrupt data, a class with too few images, or a folder that cannot be written; finished parts are
    kept for the next call.
    """
    if (store / HEADER).exists() and (header := read_header(store)).identity == source.identity:
        return header
    if store.exists():
        raise UserError(f"{store} exists and is another store or folder: choose another name, or remove it.")
    try:
        with _workspace(store, source) as work:
            plan = _scan(source, work, progress)
            _place(source, plan, work, progress)
            header = _seal(plan, work, progress)
            os.rename(work, store)
            files.sync(store.parent)
            return header
    except OSError as error:
        raise UserError(
            f"the class store {store} cannot be written ({error.strerror or error}): free space or choose another "
            "folder, and run the same command again, which resumes."
        ) from error


@contextmanager
def _workspace(store: Path, source: Source) -> Iterator[Path]:
    """The folder of unfinished parts, locked for this process; emptied if it belonged to another source."""
    work = store.with_name(store.name + ".partial")
    work.mkdir(parents=True, exist_ok=True)
    handle = os.open(work, os.O_RDONLY)
    try:
        try:
            # The folder itself is locked: filelock would need a file, and the folder becomes the store.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is preparing {store}: wait for it, or choose another folder.") from None
        identity = work / "identity"
        if not identity.exists() and any(work.iterdir()):
            raise UserError(f"{work} is not an unfinished dataset of ours: move it, or choose another folder.")
        if not identity.exists() or identity.read_text() != source.identity:
            for path in work.iterdir():
                path.unlink()
            files.replace(identity, source.identity)
        yield work
    finally:
        os.close(handle)


def _scan(source: Source, work: Path, progress: Progress) -> _Plan:
    labels, keys = [], []
    for part in range(len(source.parts)):
        progress("checking", part, len(source.parts))
        path = work / f"scan-{part}.npy"
        if not path.exists():
            images, found = _checked(source, part)
            content = io.BytesIO()
            np.save(content, np.stack([found.astype(np.uint64), image_keys(images)]), allow_pickle=False)
            files.replace(path, content.getvalue())
        both = np.load(path, allow_pickle=False)
        labels.append(both[0].astype(np.int64))
        keys.append(both[1])
    progress("checking", len(source.parts), len(source.parts))
    return _plan(source, labels, keys)


def _checked(source: Source, part: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of a part and their labels, counted from 0. Raises UserError unless they are as the source declares."""
    images, labels = source.read(part)
    where = f"{source.description}, part {part + 1} of {len(source.parts)}"
    if images.dtype != np.uint8 or images.shape[1:] != source.image_shape or labels.shape != images.shape[:1]:
        raise UserError(
            f"{where}: images are {images.dtype} {images.shape} with {labels.shape} labels, but uint8 images of shape "
            f"{source.image_shape} with one label each were expected: this is another data set."
        )
    first, last = source.first_label, source.first_label + source.classes - 1
    wrong = labels[(labels < first) | (labels > last)]
    if len(wrong):
        raise UserError(
            f"{where}: label {wrong[0]} is outside {first} .. {last}: the data are corrupt or another data set, "
            "and no store was written."
        )
    return images, labels - first


def _plan(source: Source, labels: list[np.ndarray], keys: list[np.ndarray]) -> _Plan:
    places: list[np.ndarray] = [np.empty(0, np.int64)] * len(labels)
    kept = _complete_classes(source, labels)
    offsets, sorted_keys = {}, {}
    for name in FILES:
        parts = [i for i, file in enumerate(source.parts) if file == name]
        label, key = (np.concatenate([rows[i] for i in parts]) for rows in (labels, keys))
        used = np.flatnonzero(kept[label])
        order = used[np.lexsort((key[used], label[used]))]
        place = np.full(len(label), -1, np.int64)
        place[order] = np.arange(len(order))
        for i, piece in zip(parts, np.split(place, np.cumsum([len(labels[i]) for i in parts])[:-1])):
            places[i] = piece
        counts = np.bincount(label, minlength=source.classes)[kept]
        offsets[name] = [0, *np.cumsum(counts).tolist()]
        sorted_keys[name] = key[order]
    header = Header(source.description, source.identity, source.image_shape, offsets, fingerprint="")
    return _Plan(header, places, sorted_keys)


def _complete_classes(source: Source, labels: list[np.ndarray]) -> np.ndarray:
    """[classes] bool: those with enough images. Raises UserError when others may not be left out, or none is complete."""
    counts = {
        name: sum(
            (np.bincount(found, minlength=source.classes) for file, found in zip(source.parts, labels) if file == name),
            np.zeros(source.classes, np.int64),
        )
        for name in FILES
    }
    short = {name: counts[name] < LEAST[name] for name in FILES}
    complete = ~np.logical_or(*short.values())
    if source.names is None:
        for name in FILES:
            _check_counts(source, name, np.flatnonzero(short[name]))
    elif not complete.any():
        raise UserError(f"{source.description}: no class has two training images and a test image left.")
    else:
        for cls in np.flatnonzero(~complete):
            source.rejected[source.names[cls]] = too_small({name: int(found[cls]) for name, found in counts.items()})
    return complete


def _check_counts(source: Source, name: str, short: np.ndarray) -> None:
    if len(short):
        raise UserError(
            f"{source.description}: {len(short)} of {source.classes} classes have fewer than {LEAST[name]} {name} images "
            f"(the first is label {short[0] + source.first_label}): the data are incomplete, fetch them again."
        )


def _place(source: Source, plan: _Plan, work: Path, progress: Progress) -> None:
    maps = {}
    for name in FILES:
        _allocate(work / f"{name}.bin", plan.header.offsets[name][-1] * int(np.prod(source.image_shape)))
        maps[name] = map_images(work, plan.header, name, "r+")
    for part, name in enumerate(source.parts):
        progress("writing", part, len(source.parts))
        done = work / f"placed-{part}"
        if not done.exists():
            images = source.read(part)[0]
            if len(images) != len(plan.places[part]):
                raise UserError(f"{source.description} changed while they were read: run the same command again.")
            used = plan.places[part] >= 0
            maps[name][plan.places[part][used]] = images[used]
            done.touch()  # not synced: after a power failure, `_seal` finds missing images
    progress("writing", len(source.parts), len(source.parts))


def _seal(plan: _Plan, work: Path, progress: Progress) -> Header:
    """Checks every written image, writes the header, and removes all other files from the folder."""
    shape, offsets, classes = plan.header.image_shape, plan.header.offsets, plan.header.classes
    digest = hashlib.sha256(json.dumps([shape, offsets], sort_keys=True).encode())
    for turn, name in enumerate(FILES):
        images = map_images(work, plan.header, name)
        for cls, (begin, end) in enumerate(zip(offsets[name], offsets[name][1:])):
            if cls % 10 == 0:
                progress("verifying", turn * classes + cls, len(FILES) * classes)
            if (image_keys(images[begin:end]) != plan.keys[name][begin:end]).any():
                shutil.rmtree(work)
                raise UserError(
                    f"{work}/{name}.bin differs from what was written: check the disk, and prepare it again."
                )
            digest.update(images[begin:end].tobytes())
        files.sync(work / f"{name}.bin")
    progress("verifying", len(FILES) * classes, len(FILES) * classes)
    header = Header(**{**vars(plan.header), "fingerprint": digest.hexdigest()})
    files.sync(write_header(work, header))
    for path in work.iterdir():
        if path.name not in {HEADER, *(f"{name}.bin" for name in FILES)}:
            path.unlink()
    files.sync(work)
    return header


def image_keys(images: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each image, uint64 `[n]`."""
    digests = (hashlib.blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(images))
    return np.frombuffer(b"".join(digests), np.uint64)


def _allocate(path: Path, size: int) -> None:
    """Reserves the file's space now, so that a full disk is an OSError here and not a bus error in a memory map."""
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)
