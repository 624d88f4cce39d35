"""Handwritten digits without a download: scikit-learn's 1,797 images of 8x8, enlarged, instead of MNIST."""

import hashlib

import numpy as np

from common import streams
from common.errors import UserError

FRACTIONS = {"train": (0.0, 0.6), "valid": (0.6, 0.8), "test": (0.8, 1.0)}  # of each class


class Digits:
    """Ten classes of grey images [size, size, 1]: a `common.data.dataset.Dataset`."""

    classes = 10

    def __init__(self, size: int, seed: int = 0):
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UserError(
                "digits need MNIST or scikit-learn: prepare MNIST at data/mnist, or install outertrain[figures]"
            ) from None
        small, labels = load_digits(return_X_y=True)
        order = streams.generator(streams.DIGITS, seed).permutation(len(labels))
        images = enlarge(small[order].reshape(-1, 8, 8) * (255 / 16), size)
        self._by_class = [images[labels[order] == digit] for digit in range(10)]
        self.image_shape = (size, size, 1)
        self.fingerprint = hashlib.sha256(images.tobytes()).hexdigest()

    def max_count(self, split: str) -> int:
        return max(len(self.images(digit, split)) for digit in range(10))

    def images(self, cls: int, split: str) -> np.ndarray:
        own = self._by_class[cls]
        low, high = (round(fraction * len(own)) for fraction in FRACTIONS[split])
        chosen: np.ndarray = own[low:high]
        return chosen


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, size, size, 1] by bilinear interpolation of [n, h, w]."""
    for axis in (1, 2):
        length = images.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.minimum(at.astype(int), length - 2)
        high = np.expand_dims(at - low, tuple(k for k in range(3) if k != axis))  # weight of the higher neighbour
        images = np.take(images, low, axis) * (1 - high) + np.take(images, low + 1, axis) * high
    return np.asarray(np.rint(images), np.uint8)[..., None]
