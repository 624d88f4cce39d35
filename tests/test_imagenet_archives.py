import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import CLASSES, batch, npz, read_zip, write_archives, write_zip
from helpers.sources import quiet

from common.data.class_store import ClassStore
from common.data.imagenet_archives import open_archives
from common.data.prepare import prepare
from common.errors import UserError

TRAIN, VAL = "Imagenet8_train_npz.zip", "Imagenet8_val_npz.zip"


@pytest.fixture
def content(tmp_path):
    return write_archives(tmp_path, size=8, train=3, test=1)


def test_store_of_archives_has_each_image_once_in_its_class(tmp_path, content):
    prepare(open_archives(tmp_path), tmp_path / "store", quiet)
    store = ClassStore(tmp_path / "store", valid_fraction=0.2)
    assert (store.classes, store.image_shape) == (CLASSES, (8, 8, 3))
    for file, splits in (("train", ("train", "valid")), ("test", ("test",))):
        found = [
            (cls, image.tobytes()) for cls in range(CLASSES) for split in splits for image in store.images(cls, split)
        ]
        expected = zip(content.labels[file].tolist(), (image.tobytes() for image in content.images[file]))
        assert sorted(found) == sorted(expected)


def test_parts_are_the_batches_in_numeric_order(tmp_path, content):
    source = open_archives(tmp_path)
    assert source.parts == ["train"] * 10 + ["test"]
    images, labels = source.read(9)  # train_data_batch_10 sorts before _2 as text
    assert np.array_equal(images, content.images["train"][-300:])
    assert np.array_equal(labels, content.labels["train"][-300:] + 1)


def test_identity_changes_with_the_content(tmp_path, content):
    identity = open_archives(tmp_path).identity
    assert open_archives(tmp_path).identity == identity
    write_archives(tmp_path, size=8, train=3, test=1, seed=1)
    assert open_archives(tmp_path).identity != identity


def test_training_batches_in_two_archives_are_the_same(tmp_path, content):
    batches = read_zip(tmp_path / TRAIN)
    names = sorted(batches)
    write_zip(tmp_path / "Imagenet8_train_part1_npz.zip", {n: batches[n] for n in names[:5]})
    write_zip(tmp_path / "Imagenet8_train_part2_npz.zip", {n: batches[n] for n in names[5:]})
    identity = open_archives_without(tmp_path, TRAIN).identity
    write_zip(tmp_path / TRAIN, batches)
    for part in (1, 2):
        (tmp_path / f"Imagenet8_train_part{part}_npz.zip").unlink()
    assert open_archives(tmp_path).identity == identity


def unpack(folder, *names):
    """Unpacks archives into folders of their own, as `unzip -d` does, and removes them."""
    for name in names:
        (folder / Path(name).stem).mkdir()
        for member, content in read_zip(folder / name).items():
            (folder / Path(name).stem / member).write_bytes(content)
        (folder / name).unlink()


@pytest.mark.parametrize("names", [(TRAIN, VAL), (TRAIN,), (VAL,)])
def test_unpacked_batches_give_the_store_of_the_archives(tmp_path, content, names):
    packed = prepare(open_archives(tmp_path), tmp_path / "a", quiet)
    unpack(tmp_path, *names)
    assert open_archives(tmp_path).parts == ["train"] * 10 + ["test"]
    assert prepare(open_archives(tmp_path, 8), tmp_path / "b", quiet).fingerprint == packed.fingerprint


def test_identity_of_unpacked_batches_changes_with_content(tmp_path, content):
    unpack(tmp_path, TRAIN, VAL)
    identity = open_archives(tmp_path).identity
    assert open_archives(tmp_path).identity == identity
    content.images["test"][0, 0, 0, 0] ^= 1
    (tmp_path / Path(VAL).stem / "val_data.npz").write_bytes(batch(content, "test", slice(None)))
    assert open_archives(tmp_path).identity != identity


def test_truncated_unpacked_batch_is_rejected(tmp_path, content):
    unpack(tmp_path, VAL)
    path = tmp_path / Path(VAL).stem / "val_data.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"val_data.npz cannot be read .*unpack its archive again"):
        open_archives(tmp_path)


def test_batch_unpacked_twice_is_rejected(tmp_path, content):
    unpack(tmp_path, VAL)
    shutil.copytree(tmp_path / Path(VAL).stem, tmp_path / "copy")
    with pytest.raises(UserError, match=r"12 batches instead of .*some are there twice"):
        open_archives(tmp_path)


def open_archives_without(folder, name):
    (folder / name).unlink()
    return open_archives(folder)


def test_open_archives_with_several_sizes_needs_a_choice(tmp_path, content):
    write_archives(tmp_path, size=16, train=2)
    assert open_archives(tmp_path, 16).image_shape == (16, 16, 3)
    with pytest.raises(UserError, match=r"sizes 8, 16: choose one"):
        open_archives(tmp_path)
    with pytest.raises(UserError, match=r"size 8, 16, not 32: leave --size out"):
        open_archives(tmp_path, 32)


def test_open_archives_without_archives_names_them(tmp_path):
    with pytest.raises(UserError, match=r"holds none of .*Imagenet32_val_npz.zip: download"):
        open_archives(tmp_path)


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_open_archives_names_batches_of_a_missing_archive(tmp_path, content, name):
    with pytest.raises(UserError, match=r"batch \d+ of (train|test).*download"):
        open_archives_without(tmp_path, name)


def test_open_archives_without_a_batch_is_rejected(tmp_path, content):
    batches = read_zip(tmp_path / TRAIN)
    del batches["train_data_batch_4.npz"]
    write_zip(tmp_path / TRAIN, batches)
    with pytest.raises(UserError, match=r"10 batches instead of .*batch 4 of train"):
        open_archives(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_open_archives_with_truncated_archive_is_rejected(tmp_path, content, keep):
    whole = (tmp_path / TRAIN).read_bytes()
    (tmp_path / TRAIN).write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UserError, match=r"truncated, download it again"):
        open_archives(tmp_path)


def test_prepare_resumes_after_a_corrupt_archive_is_repaired(tmp_path, content):
    whole = (tmp_path / TRAIN).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    (tmp_path / TRAIN).write_bytes(damaged)
    with pytest.raises(UserError, match=r"train_data_batch_\d+.npz .* cannot be read .*CRC.*download it again"):
        prepare(open_archives(tmp_path), tmp_path / "store", quiet)
    assert not (tmp_path / "store").exists()
    (tmp_path / TRAIN).write_bytes(whole)
    prepare(open_archives(tmp_path), tmp_path / "store", quiet)


@pytest.mark.parametrize(
    "arrays",
    [
        {"data": np.zeros((2, 192), np.uint8)},
        {"data": np.zeros((2, 191), np.uint8), "labels": np.ones(2, int)},
        {"data": np.zeros((2, 192), np.uint8), "labels": np.array([1, None])},
    ],
)
def test_read_of_a_batch_with_other_arrays_is_rejected(tmp_path, content, arrays):
    write_zip(tmp_path / VAL, {"val_data.npz": npz(**arrays)})
    with pytest.raises(UserError, match=r"val_data.npz .* cannot be read"):
        open_archives(tmp_path).read(10)


@pytest.mark.parametrize("wrong", [0, 1001])
def test_prepare_rejects_labels_outside_1_to_1000(tmp_path, content, wrong):
    content.labels["test"][5] = wrong - 1
    write_zip(tmp_path / VAL, {"val_data.npz": batch(content, "test", slice(None))})
    with pytest.raises(UserError, match=f"label {wrong} is outside 1 .. 1000"):
        prepare(open_archives(tmp_path), tmp_path / "store", quiet)


def test_prepare_rejects_archives_with_too_few_classes(tmp_path, content):
    content.labels["test"][content.labels["test"] >= 7] = 0
    write_zip(tmp_path / VAL, {"val_data.npz": batch(content, "test", slice(None))})
    with pytest.raises(UserError, match=r"993 of 1000 classes have fewer than 1 test images \(the first is label 8\)"):
        prepare(open_archives(tmp_path), tmp_path / "store", quiet)
