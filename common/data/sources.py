"""Recognition of what `data prepare` is given: which source reads it, or a sentence on what was found instead.

Everything here looks at names and headers only, so that a wrong path is reported before anything long is done.
"""

import re
from pathlib import Path

from common.data.class_store import HEADER
from common.data.image_folder import Layout, find_layout, open_image_folder
from common.data.imagenet_archives import ARCHIVE, BATCH, find_batches, open_archives
from common.data.npz_source import Npz
from common.data.parquet_files import has_parquet
from common.data.prepare import Source
from common.errors import UserError

PICKLED = re.compile(r"Imagenet(8|16|32|64)_(train|val)(_part[12])?\.zip|train_data_batch_\d+|val_data")
UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".tmp")
SHOWN = 5  # names of a folder that are listed in a sentence


def open_source(name: str, data_dir: Path | None = None, size: int | None = None, label: str | None = None) -> Source:
    """The source behind `name`: tfds:NAME, a .npz or Parquet file, or a folder of such files, official archives or classes.

    Args:
      name: as given on the command line.
      data_dir: where tensorflow-datasets keeps its data.
      size: width and height of the images, where the source offers several.
      label: the column of labels, of Parquet files.

    Raises UserError when there is no such source, or it is incomplete.
    """
    scheme, separator, rest = name.partition(":")
    place = Path(name)
    is_tfds = separator and scheme == "tfds"
    if not is_tfds and not place.exists():
        raise UserError(f"{place} does not exist: give a folder, or tfds:NAME for a set of tensorflow-datasets.")
    if not is_tfds and _is_parquet(place):
        from common.data.parquet_source import Parquet  # imports pyarrow

        return Parquet(place, size, label)
    if label is not None:
        raise UserError(f"--label chooses a column of Parquet files, and there are none in {name}: leave it out.")
    if is_tfds:
        from common.data.tfds_source import open_tfds  # imports tensorflow-datasets

        return open_tfds(rest, data_dir, size)
    return _open_folder(place, size) if place.is_dir() else _open_file(place, size)


def _is_parquet(place: Path) -> bool:
    """Whether these are Parquet files. Where there are class folders too, the images in them are meant."""
    if not place.is_dir():
        return place.suffix.lower() == ".parquet"
    if (place / HEADER).exists() or find_batches(place) or not has_parquet(place):
        return False
    layout = find_layout(place)
    return layout is None or not layout.files["train"]


def _open_file(path: Path, size: int | None) -> Source:
    if path.suffix != ".npz" or BATCH.fullmatch(path.name):
        raise UserError(_of_file(path))
    if size is not None:
        raise UserError(f"--size cannot be chosen for {path}: its images are stored in their own size; leave it out.")
    return Npz(path)


def _open_folder(folder: Path, size: int | None) -> Source:
    if (folder / HEADER).exists():
        raise UserError(f"{folder} is a class store already: use it as it is, with dataset.path={folder}.")
    if find_batches(folder):
        return open_archives(folder, size)
    if sentence := _of_folder(folder):
        raise UserError(sentence)
    if layout := find_layout(folder):
        _check_depth(folder, layout)
        return open_image_folder(folder, layout, size)
    raise UserError(_of_others(folder))


def _check_depth(folder: Path, layout: Layout) -> None:
    """Raises UserError when the only class is a folder of class folders, as an unpacked archive has them."""
    for name in layout.files["train"] if len(layout.files["train"]) == 1 else ():
        inner = find_layout(folder / name) if (folder / name).is_dir() else None
        if inner is not None and len(inner.files["train"]) > 1:
            raise UserError(f"the class folders are in {folder / name}: give that folder.")


def _of_file(path: Path) -> str:
    if ARCHIVE.fullmatch(path.name) or BATCH.fullmatch(path.name):
        return f"{path} is one file of a set: give the folder that holds all of them, {path.parent}."
    if PICKLED.fullmatch(path.name):
        return _pickled(path.parent, [path.name])
    return f"{path} is a file: give a folder, a .npz or .parquet file, or tfds:NAME."


def _of_folder(folder: Path) -> str | None:
    """What is in a folder without official batches, if that explains it."""
    names = _visible(folder)
    if pickled := [name for name in names if PICKLED.fullmatch(name)]:
        return _pickled(folder, pickled)
    if unfinished := [name for name in names if name.startswith("Imagenet") and name.endswith(UNFINISHED)]:
        return f"{folder} holds an unfinished download ({_listed(unfinished)}): complete it first."
    inside = [folder / name for name in names if (folder / name).is_dir() and find_batches(folder / name)]
    if inside:
        return f"the official archives are in {inside[0]}: give that folder."
    return None


def _of_others(folder: Path) -> str:
    found = _listed(_visible(folder)) or "nothing"
    return (
        f"{folder} holds {found}, but neither class folders with images, Parquet files nor the official archives: give a folder with "
        "one folder of images for each class, or download Imagenet32_train_npz.zip and Imagenet32_val_npz.zip from "
        "image-net.org (downsampled ImageNet, npz format)."
    )


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _pickled(folder: Path, names: list[str]) -> str:
    return (
        f"{folder} holds the pickle format of downsampled ImageNet ({_listed(names)}), which is not read, because "
        "unpickling a file can run code in it: download the npz format, Imagenet<size>_train_npz.zip and "
        "Imagenet<size>_val_npz.zip, from image-net.org."
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
