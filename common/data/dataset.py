"""The dataset of image tasks: its protocol, how the configuration selects one, and the outer split of its classes.

The images of a class have three inner splits ("train", "valid", "test"), the classes two outer splits ("outer_train",
"outer_test"): an optimizer is trained on tasks of outer-train classes and evaluated on tasks of outer-test classes.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from common import streams
from common.config import DatasetConfig
from common.data.class_store import ClassStore
from common.data.procedural import Procedural

OUTER_TRAIN_FRACTION = 0.7  # section 5 of the paper: 700 of ImageNet's 1,000 classes


class Dataset(Protocol):
    """Classes 0 .. classes - 1 with three disjoint inner splits of images each."""

    image_shape: tuple[int, int, int]  # height, width, channels
    classes: int
    fingerprint: str  # sha256 of what determines the content

    def max_count(self, split: str) -> int:
        """The largest number of images of a class in this inner split, to which the arrays of a task are padded."""
        ...

    def images(self, cls: int, split: str) -> np.ndarray:
        """uint8 `[n, H, W, C]`, read-only, n <= max_count(split)."""
        ...


def open_dataset(config: DatasetConfig) -> Dataset:
    """The dataset that the configuration selects. Raises UserError when it cannot be opened."""
    if config.source == "store":
        return ClassStore(Path(config.path), config.valid_fraction)
    counts = {"train": config.train_images, "valid": config.valid_images, "test": config.test_images}
    return Procedural(config.image_size, config.classes, counts, config.seed)


def outer_classes(dataset: Dataset, outer_split: str, seed: int) -> np.ndarray:
    """The classes of "outer_train" (seven tenths of them) or "outer_test" (the others), int `[n]`, sorted."""
    order = streams.generator(streams.CLASS_SPLIT, seed, dataset.classes).permutation(dataset.classes)
    boundary = round(OUTER_TRAIN_FRACTION * dataset.classes)
    return np.sort({"outer_train": order[:boundary], "outer_test": order[boundary:]}[outer_split])
