"""Any image classification set of tensorflow-datasets, as a source for a class store, without TensorFlow.

The set is downloaded and prepared in the array_record format, which can be read at random without TensorFlow. This
module and tensorflow-datasets itself are imported by `outertrain data prepare` alone: workers read the class store.
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

from common.data.tensorflow_stub import replaced_tensorflow
from common.errors import UserError

PART = 10_000  # examples of one part
HELD_OUT = ("test", "validation")  # what becomes inner-test, the first that the set has with labels
HELD_OUT_FRACTION = "10%"  # of the training split, if the set has no other


class Tfds:
    """A prepared set (common.data.prepare.Source); images of another size than `image_shape` are resized to it."""

    first_label = 0

    def __init__(self, builder: Any, image_shape: tuple[int, int, int], keys: tuple[str, str]):
        info = builder.info
        self.image_shape = image_shape
        self._image, self._label = keys
        self.classes = info.features[self._label].num_classes
        self.description = info.full_name
        splits = _splits(info)
        raw = {self._image: tfds.decode.SkipDecoding()}
        self._sources = {split: builder.as_data_source(split=split, decoders=raw) for split in splits.values()}
        self._ranges = [
            (file, split, start, min(start + PART, info.splits[split].num_examples))
            for file, split in splits.items()
            for start in range(0, info.splits[split].num_examples, PART)
        ]
        self.parts = [file for file, _, _, _ in self._ranges]
        content = [
            (str(name), int(split.num_examples), int(split.num_bytes)) for name, split in sorted(info.splits.items())
        ]
        self.identity = hashlib.sha256(repr((info.full_name, image_shape, content)).encode()).hexdigest()

    def read(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[n, H, W, C]` and labels `[n]`."""
        _, split, start, end = self._ranges[part]
        examples = self._sources[split].__getitems__(range(start, end))
        images = np.stack([decode(example[self._image], self.image_shape) for example in examples])
        return images, np.array([example[self._label] for example in examples], np.int64)


def decode(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The PNG or JPEG image as uint8 of `shape`; where it is larger, a pixel is the mean of what it covers.

    tensorflow-datasets' own decoder leaves a grey or CMYK image among coloured ones as it is. Raises UserError.
    """
    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            converted = image.convert("L" if channels == 1 else "RGB")
    except OSError as error:  # cut short, or no image at all
        raise UserError(
            f"an image cannot be decoded ({error}): the set is damaged, remove its folder and prepare it again"
        ) from None
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BOX)
    return np.asarray(converted).reshape(shape)


def open_tfds(name: str, data_dir: Path | None = None, size: int | None = None) -> Tfds:
    """The set `name`, "imagenet_resized/32x32" for example, downloaded and prepared in `data_dir` if it is not yet.

    `data_dir` is tensorflow-datasets' own default if not given; `size` is the width and height that images are resized
    to, needed only where they differ. Raises UserError when the set is unknown, does not classify images, or cannot be
    prepared here.
    """
    with replaced_tensorflow(), redirect_stdout(sys.stderr):  # standard output belongs to results
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
    AssertionError,  # files that have to be fetched by hand are not there
    EOFError,
    NonMatchingChecksumError,
    NotImplementedError,  # prepared before, in a format without random access
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


def _splits(info: Any) -> dict[str, str]:
    """Which split of the set fills which file of the store."""
    if "train" not in info.splits:
        raise UserError(f"{info.full_name} has no training split, only {', '.join(info.splits)}: choose another set.")
    for split in HELD_OUT:
        if split in info.splits:
            return {"train": "train", "test": split}
    return {"train": f"train[{HELD_OUT_FRACTION}:]", "test": f"train[:{HELD_OUT_FRACTION}]"}


def _needs_tensorflow(name: str, error: ImportError) -> str:
    return (
        f"{name} cannot be prepared without TensorFlow ({_cause(error)}): install `tensorflow` for this one command, or "
        "prepare the set elsewhere in the array_record format and name its folder."
    )


def _cause(error: Exception) -> str:
    """The last line of the error that tensorflow-datasets wrapped, if it did."""
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[-1]
