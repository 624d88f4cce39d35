"""Images and labels in one .npz file, by the names and shapes in which people save them."""

import numpy as np
import pytest
from helpers.sources import quiet

from common.data.class_store import ClassStore, read_header
from common.data.prepare import prepare
from common.data.sources import open_source
from common.errors import UserError


def arrays(count, shape=(4, 5, 3), classes=3, first=0, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, np.arange(count) % classes + first


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_train_and_test_arrays_fill_the_store(tmp_path, names, save):
    (x, y), (x_test, y_test) = arrays(30, first=1), arrays(9, first=1, seed=1)
    save(tmp_path / "a.npz", **dict(zip(names, (x, y[:, None], x_test, y_test.astype(np.uint8)))))
    prepare(open_source(str(tmp_path / "a.npz")), tmp_path / "store", quiet)
    store = ClassStore(tmp_path / "store", valid_fraction=0.2)
    assert (store.classes, store.image_shape) == (3, (4, 5, 3))
    for cls in range(3):
        train = [*store.images(cls, "train"), *store.images(cls, "valid")]
        assert sorted(image.tobytes() for image in train) == sorted(image.tobytes() for image in x[y == cls + 1])
        test = sorted(image.tobytes() for image in store.images(cls, "test"))
        assert test == sorted(image.tobytes() for image in x_test[y_test == cls + 1])


@pytest.mark.parametrize("names", [("images", "labels"), ("X", "y"), ("data", "labels")])
def test_single_pair_holds_out_a_tenth_of_each_class(tmp_path, names):
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays(60, shape=(4, 4)))))
    prepare(open_source(str(tmp_path / "a.npz")), tmp_path / "store", quiet)
    header = read_header(tmp_path / "store")
    assert header.image_shape == (4, 4, 1)
    assert header.offsets == {"train": [0, 18, 36, 54], "test": [0, 2, 4, 6]}


def test_parts_bound_memory_and_do_not_change_the_store(tmp_path, monkeypatch):
    x, y = arrays(50)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y)
    whole = prepare(open_source(str(tmp_path / "a.npz")), tmp_path / "whole", quiet)
    monkeypatch.setattr("common.data.npz_source.PART_BYTES", 7 * 60)
    source = open_source(str(tmp_path / "a.npz"))
    assert max(len(source.read(part)[1]) for part in range(len(source.parts))) <= 7
    assert prepare(source, tmp_path / "pieces", quiet).fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"weights": np.zeros(3)}, "holds the arrays weights, but images and labels are needed"),
        (
            {"x": np.zeros((5, 4, 4, 3)), "y": np.zeros(5, int)},
            r"x in .* is float64 of shape \[5, 4, 4, 3\], but uint8",
        ),
        ({"x": np.zeros((5, 4, 4, 3), np.uint8), "y": np.zeros((5, 10), int)}, r"y in .* is int64 of shape \[5, 10\]"),
        ({"x": np.zeros((5, 4, 4, 3), np.uint8), "y": np.zeros(5)}, "an integer for each of the 5 images of x"),
        (
            {"x": np.zeros((5, 3, 4, 4), np.uint8), "y": np.zeros(5, int)},
            r"shapes \[\(3, 4, 4\)\], but one shape with 1",
        ),
        ({"x": np.array([{}] * 5), "y": np.zeros(5, int)}, "is object of shape"),
        ({"x": np.zeros((0, 4, 4, 3), np.uint8), "y": np.zeros(0, int)}, "holds no training images"),
        ({"x": np.zeros((5, 0, 4, 3), np.uint8), "y": np.zeros(5, int)}, "holds no training images"),
        (
            {"x": np.zeros((5, 4, 4, 3), np.uint8), "y": np.array([0, 1, 2, 3, 10**12])},
            "range from 0 to 1000000000000, which is more classes than its 5 training images",
        ),
    ],
)
def test_other_arrays_are_a_sentence(tmp_path, content, sentence):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=sentence):
        open_source(str(tmp_path / "a.npz"))


def test_size_of_an_npz_file_cannot_be_chosen(tmp_path):
    np.savez(tmp_path / "a.npz", x=arrays(9)[0], y=arrays(9)[1])
    with pytest.raises(UserError, match="--size cannot be chosen"):
        open_source(str(tmp_path / "a.npz"), size=8)


def test_truncated_file_is_a_sentence(tmp_path):
    np.savez(tmp_path / "a.npz", x=arrays(9)[0], y=arrays(9)[1])
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-50])
    with pytest.raises(UserError, match=r"a.npz cannot be read .* or truncated"):
        open_source(str(tmp_path / "a.npz"))


def test_identity_changes_with_the_content(tmp_path):
    identities = set()
    for seed in (0, 0, 1):
        x, y = arrays(9, seed=seed)
        np.savez(tmp_path / "a.npz", x=x, y=y)
        identities.add(open_source(str(tmp_path / "a.npz")).identity)
    assert len(identities) == 2
