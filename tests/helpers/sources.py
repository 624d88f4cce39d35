"""A source for class stores that lives in memory (common.data.prepare.Source)."""

import numpy as np


def quiet(stage: str, done: int, total: int) -> None:
    """A progress callback that shows nothing."""


class MemorySource:
    """`train` and `test` random images of each class, shuffled, in parts of `part` images; it counts what is read."""

    description = "memory"
    names = None

    def __init__(self, classes=5, train=6, test=2, part=10, seed=0, shape=(4, 4, 3), first_label=0):
        rng = np.random.default_rng(seed)
        self.image_shape, self.classes, self.first_label = shape, classes, first_label
        self.identity = f"memory {seed}"
        self.parts: list[str] = []
        self.content: list[tuple[np.ndarray, np.ndarray]] = []
        self.reads = 0
        self.rejected: dict[str, str] = {}
        for name, count in (("train", train), ("test", test)):
            labels = rng.permutation(np.repeat(np.arange(classes), count)) + first_label
            images = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
            for start in range(0, len(labels), part):
                self.parts.append(name)
                self.content.append((images[start : start + part], labels[start : start + part]))

    def read(self, part):
        self.reads += 1
        images, labels = self.content[part]
        return images.copy(), labels.copy()

    def of(self, cls, name):
        """The images of a class in one file of the store, as a sorted list of bytes."""
        return sorted(
            image.tobytes()
            for file, (images, labels) in zip(self.parts, self.content)
            for image, label in zip(images, labels)
            if file == name and label - self.first_label == cls
        )
