"""The dataset behind every image task: its protocol, opening one from the config, and the split of its classes.

Three inner splits of a class's images ("train", "valid", "test") and two outer splits of the classes ("outer_train",
"outer_test"): an optimizer is learned on tasks of outer-train classes and judged on tasks of outer-test classes.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from common.config import DatasetConfig
from common.data.class_store import ClassStore
from common.data.procedural import Procedural

OUTER_TRAIN_FRACTION = 0.7  # section 5 of the paper: 700 of ImageNet's 1,000 classes


class Dataset(Protocol):
    """Classes 0 .. classes - 1, each with images in three inner splits that have no image in common."""

    image_shape: tuple[int, int, int]  # height, width, channels
    classes: int
    fingerprint: str  # sha256 of what decides the content: another content, another fingerprint

    def max_count(self, split: str) -> int:
        """The largest number of images that a class has in this inner split: the fixed size of a task's arrays."""
        ...

    def images(self, cls: int, split: str) -> np.ndarray:
        """uint8 `[n, H, W, C]`, read-only, n <= max_count(split)."""
        ...


def open_dataset(config: DatasetConfig) -> Dataset:
    """The dataset that the config names. Raises UserError when it cannot be opened."""
    if config.source == "store":
        return ClassStore(Path(config.path), config.valid_fraction)
    counts = {"train": config.train_images, "valid": config.valid_images, "test": config.test_images}
    return Procedural(config.image_size, config.classes, counts, config.seed)


def outer_classes(dataset: Dataset, outer_split: str, seed: int) -> np.ndarray:
    """The classes of "outer_train" (seven tenths) or "outer_test" (the others), int `[n]`, sorted."""
    order = np.random.default_rng([seed, dataset.classes]).permutation(dataset.classes)
    border = round(OUTER_TRAIN_FRACTION * dataset.classes)
    return np.sort({"outer_train": order[:border], "outer_test": order[border:]}[outer_split])
