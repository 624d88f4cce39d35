"""Digits without a download: ten classes, three splits, enlarged."""

from itertools import pairwise

import numpy as np

from workers.figures import digits


def test_digits_are_ten_classes_without_overlap():
    data = digits.Digits(28)
    assert data.image_shape == (28, 28, 1)
    whole = [np.concatenate([data.images(d, s) for s in digits.FRACTIONS]) for d in range(10)]
    assert sum(map(len, whole)) == 1797
    assert all(len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images) for images in whole)
    assert data.max_count("train") == max(len(data.images(d, "train")) for d in range(10))


def test_enlarge_keeps_corners_and_interpolates():
    image = np.array([[[0.0, 100.0], [100.0, 200.0]]])
    big = digits.enlarge(image, 4)[0, :, :, 0]
    assert big[0, 0] == 0 and big[-1, -1] == 200 and (big == big.T).all()
    assert all(a <= b for a, b in pairwise(big[1])) and big[1, 1] == 50
