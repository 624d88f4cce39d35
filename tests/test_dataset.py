import numpy as np
import pytest
from helpers.sources import MemorySource, quiet

from common.config import DatasetConfig
from common.data.dataset import OUTER_TRAIN_FRACTION, open_dataset, outer_classes
from common.data.prepare import prepare
from common.errors import UserError


def test_procedural_source_has_the_configured_shapes():
    dataset = open_dataset(DatasetConfig(image_size=16, classes=30, train_images=5, valid_images=3, test_images=2))
    assert dataset.image_shape == (16, 16, 3)
    assert dataset.classes == 30
    for split, count in (("train", 5), ("valid", 3), ("test", 2)):
        assert dataset.max_count(split) == count
        assert dataset.images(29, split).shape == (count, 16, 16, 3)
        assert dataset.images(29, split).dtype == np.uint8


def test_procedural_source_depends_on_the_seed():
    first = open_dataset(DatasetConfig(classes=3)).images(0, "train")
    assert not np.array_equal(first, open_dataset(DatasetConfig(classes=3, seed=1)).images(0, "train"))


def test_store_is_opened_with_its_valid_fraction(tmp_path):
    source = MemorySource(classes=4, train=10, test=2)
    header = prepare(source, tmp_path / "store", quiet)
    half, fifth = (
        open_dataset(DatasetConfig(source="store", path=str(tmp_path / "store"), valid_fraction=fraction))
        for fraction in (0.5, 0.2)
    )
    assert (half.max_count("train"), half.max_count("valid"), half.max_count("test")) == (5, 5, 2)
    assert (fifth.max_count("train"), fifth.max_count("valid")) == (8, 2)
    assert len({half.fingerprint, fifth.fingerprint, header.fingerprint}) == 3


def test_open_dataset_without_a_store_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is not a class store.*outertrain data prepare"):
        open_dataset(DatasetConfig(source="store", path=str(tmp_path)))


@pytest.mark.parametrize(("classes", "outer_train"), [(1000, 700), (10, 7), (2, 1)])
def test_outer_classes_partition_the_classes(classes, outer_train):
    dataset = open_dataset(DatasetConfig(classes=classes))
    train, test = (outer_classes(dataset, split, seed=0) for split in ("outer_train", "outer_test"))
    assert len(train) == outer_train == round(OUTER_TRAIN_FRACTION * classes)
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(classes))


def test_outer_classes_depend_on_the_seed_only():
    dataset = open_dataset(DatasetConfig())
    first = outer_classes(dataset, "outer_test", seed=0)
    assert np.array_equal(first, outer_classes(open_dataset(DatasetConfig(seed=5)), "outer_test", seed=0))
    assert not np.array_equal(first, outer_classes(dataset, "outer_test", seed=1))
    assert abs(first.mean() - 499.5) < 4 * 1000 / np.sqrt(12 * 300)  # not the first or last classes; 4 standard errors
