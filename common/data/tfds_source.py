"""Image classification sets of tensorflow-datasets as sources for a class store, without TensorFlow.

A set is downloaded and prepared in the array_record format, which has random access without TensorFlow. Only
`outertrain data prepare` imports this module and tensorflow-datasets itself: workers read the class store.
"""

import hashlib
import io
import sys
import tarfile
import zipfile
import zlib
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from common.data.images import UNDECODABLE, reason, resized
from common.data.tensorflow_stub import replaced_tensorflow
from common.errors import UserError

PART = 10_000  # examples of one part, at most
PART_BYTES = 64 * 2**20  # of its encoded images, and of its decoded ones
HELD_OUT = ("test", "validation")  # the first of these that has labels becomes inner-test
HELD_OUT_FRACTION = "10%"  # of the training split, where no other split has labels
PROBED = 100  # labels that tell whether a split has labels at all


class Tfds:
    """A prepared set (common.data.prepare.Source). Images are resized to `image_shape` where they differ from it."""

    first_label = 0

    def __init__(self, builder: Any, image_shape: tuple[int, int, int], keys: tuple[str, str]):
        info = builder.info
        self.image_shape = image_shape
        self.rejected: dict[str, str] = {}
        self.names: list[str] | None = None
        self._image, self._label = keys
        self.classes = info.features[self._label].num_classes
        raw = {self._image: tfds.decode.SkipDecoding()}
        held_out = [
            (split, builder.as_data_source(split=split, decoders=raw)) for split in HELD_OUT if split in info.splits
        ]
        labelled = [split for split, source in held_out if _has_labels(source, self._label)]
        splits = _splits(info, labelled)
        self.description = info.full_name
        if unlabelled := [split for split, _ in held_out if split not in labelled]:
            self.description += f" ({', '.join(unlabelled)} has no labels: {splits['test']} is used in its place)"
        self._sources = {split: builder.as_data_source(split=split, decoders=raw) for split in splits.values()}
        self._ranges = [
            (file, split, start, min(start + step, info.splits[split].num_examples))
            for file, split in splits.items()
            for step in [_part(info.splits[split], image_shape)]
            for start in range(0, info.splits[split].num_examples, step)
        ]
        self.parts = [file for file, _, _, _ in self._ranges]
        content: list[Any] = [
            (str(name), int(split.num_examples), int(split.num_bytes)) for name, split in sorted(info.splits.items())
        ]
        if any(_part(info.splits[split], image_shape) < PART for split in splits.values()):
            content += self._ranges  # an unfinished preparation knows its parts by their numbers
        self.identity = hashlib.sha256(repr((info.full_name, image_shape, content)).encode()).hexdigest()

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[n, H, W, C]` and labels `[n]` of the images that can be decoded; the others go to `rejected`."""
        _, split, start, end = self._ranges[part]
        images, labels = [], []
        for number, example in enumerate(self._sources[split].__getitems__(range(start, end)), start):
            try:
                images.append(decode(example[self._image], self.image_shape))
                labels.append(example[self._label])
            except UNDECODABLE as error:
                self.rejected[f"{split}[{number}]"] = reason(error)
        return np.array(images, np.uint8).reshape(-1, *self.image_shape), np.array(labels, np.int64)


def decode(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The encoded image as uint8 of `shape`; where it is larger, a pixel is the mean of the pixels it covers.

    Raises one of `UNDECODABLE` when the image is truncated. The decoder of tensorflow-datasets is not used, because it
    returns grey and CMYK images among coloured ones unconverted.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        return resized(image.convert("L" if shape[2] == 1 else "RGB"), shape)


def _part(split: Any, shape: tuple[int, int, int]) -> int:
    """The number of examples of a part, so that it fits into memory whatever the size of the images."""
    encoded = split.num_bytes / max(1, split.num_examples)
    return int(np.clip(PART_BYTES / max(encoded, np.prod(shape)), 1, PART))


def open_tfds(name: str, data_dir: Path | None = None, size: int | None = None) -> Tfds:
    """The set `name`, for example "imagenet_resized/32x32", downloaded and prepared unless it is already.

    Args:
      name: of the builder and its configuration.
      data_dir: where tensorflow-datasets keeps its data; its own default where None.
      size: width and height to which images are resized, needed only where they differ in size.

    Raises UserError when the set is unknown, does not classify images, or cannot be prepared here.
    """
    with replaced_tensorflow(), redirect_stdout(sys.stderr):  # standard output is for results
        builder = _builder(name, data_dir)
        keys = _supervised_keys(name, builder.info)
        shape = _shape(name, builder.info.features[keys[0]], size)
        try:
            builder.download_and_prepare(file_format="array_record")
            return Tfds(builder, shape, keys)
        except ImportError as error:
            raise UserError(_needs_tensorflow(name, error)) from error
        except _FAILURES as error:
            raise UserError(
                f"{name} cannot be prepared by tensorflow-datasets ({_cause(error)}): correct that and run the same "
                f"command again, its files are in {builder.data_dir}."
            ) from error


_FAILURES = (
    AssertionError,  # files that must be downloaded manually are missing
    EOFError,
    NonMatchingChecksumError,
    NotImplementedError,  # the set was prepared earlier, in a format without random access
    OSError,  # no connection (requests' errors are OSErrors), no space
    ValueError,
    tarfile.TarError,
    tfds.download.DownloadError,
    zipfile.BadZipFile,
    zlib.error,
)


def _builder(name: str, data_dir: Path | None) -> Any:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except ImportError as error:
        raise UserError(_needs_tensorflow(name, error)) from error
    except ValueError as error:  # an unknown name, an unknown configuration
        raise UserError(
            f"tensorflow-datasets has no {name!r} ({_cause(error)}): choose one of its image classification sets."
        ) from error


def _supervised_keys(name: str, info: Any) -> tuple[str, str]:
    keys = info.supervised_keys
    if keys and len(keys) == 2:
        image, label = (info.features[key] for key in keys)
        if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
            return keys
    raise UserError(f"{name} does not classify images (no image with one class label): choose another set.")


def _shape(name: str, feature: Any, size: int | None) -> tuple[int, int, int]:
    height, width, channels = feature.shape
    if feature.np_dtype != np.uint8 or channels not in (1, 3):
        raise UserError(
            f"{name} has images of {channels} channels of {feature.np_dtype}, but 1 or 3 channels of uint8 are needed: "
            "choose another set."
        )
    if size is None and None in (height, width):
        raise UserError(f"the images of {name} differ in size: give the image size that they are resized to.")
    return (height, width, channels) if size is None else (size, size, channels)


def _has_labels(source: Any, label: str) -> bool:
    """Whether a split has labels: competitions publish their test split with -1 for each of them."""
    examples = source.__getitems__(range(0, len(source), max(1, len(source) // PROBED)))
    return any(example[label] >= 0 for example in examples)


def _splits(info: Any, labelled: list[str]) -> dict[str, str]:
    """The split of the set for each file of the store; `labelled` are the other splits that can be the test split."""
    if "train" not in info.splits:
        raise UserError(f"{info.full_name} has no training split, only {', '.join(info.splits)}: choose another set.")
    if labelled:
        return {"train": "train", "test": labelled[0]}
    return {"train": f"train[{HELD_OUT_FRACTION}:]", "test": f"train[:{HELD_OUT_FRACTION}]"}


def _needs_tensorflow(name: str, error: ImportError) -> str:
    return (
        f"{name} cannot be prepared without TensorFlow ({_cause(error)}): install `tensorflow` for this one command, or "
        "prepare the set elsewhere in the array_record format and name its folder."
    )


def _cause(error: Exception) -> str:
    """The last line of the error, or of the one that tensorflow-datasets wrapped in it."""
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[-1]
