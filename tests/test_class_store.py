import json

import numpy as np
import pytest
from helpers.sources import MemorySource, quiet

from common.data.class_store import FILES, HEADER, ClassStore, read_header, write_header
from common.data.prepare import prepare
from common.errors import UserError


@pytest.fixture
def source():
    return MemorySource(classes=5, train=7, test=2)


@pytest.fixture
def folder(tmp_path, source):
    prepare(source, tmp_path / "store", quiet)
    return tmp_path / "store"


def bytes_of(images):
    return sorted(image.tobytes() for image in images)


def test_each_image_is_in_exactly_one_split_of_its_class(folder, source):
    store = ClassStore(folder, valid_fraction=0.3)
    for cls in range(store.classes):
        train, valid, test = (store.images(cls, split) for split in ("train", "valid", "test"))
        assert bytes_of([*train, *valid]) == source.of(cls, "train")
        assert bytes_of(test) == source.of(cls, "test")
        assert (len(train), len(valid), len(test)) == (5, 2, 2)
        assert train.shape[1:] == store.image_shape == (4, 4, 3)


@pytest.mark.parametrize(("fraction", "valid"), [(1e-6, 1), (0.5, 4), (1 - 1e-6, 6)])
def test_valid_fraction_leaves_an_image_in_both_splits(folder, fraction, valid):
    store = ClassStore(folder, fraction)
    assert store.max_count("valid") == valid
    assert store.max_count("train") == 7 - valid


def test_max_count_is_that_of_the_largest_class(tmp_path):
    source = MemorySource(classes=3, train=6, test=1)
    for part, (_, labels) in enumerate(source.content):
        if source.parts[part] == "train":
            labels[labels == 0] = 1  # class 0 loses its images, class 1 has twice as many
    source.content[0][1][:2] = 0
    moved = np.concatenate([labels for file, (_, labels) in zip(source.parts, source.content) if file == "train"])
    prepare(source, tmp_path / "store", quiet)
    store = ClassStore(tmp_path / "store", valid_fraction=0.5)
    largest = np.bincount(moved).max()
    assert store.max_count("train") + store.max_count("valid") == largest
    assert max(len(store.images(c, "train")) for c in range(3)) == store.max_count("train")


def test_images_are_a_read_only_view_of_the_file(folder):
    images = ClassStore(folder, 0.3).images(0, "train")
    assert not images.flags.writeable
    assert not images.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


@pytest.mark.parametrize("cls", [-1, 5])
def test_images_of_an_unknown_class_raise_index_error(folder, cls):
    with pytest.raises(IndexError, match=f"class {cls} of 5"):
        ClassStore(folder, 0.3).images(cls, "train")


def test_fingerprint_changes_with_content_and_split(tmp_path, folder, source):
    source.content[0][0][0, 0, 0, 0] ^= 1
    prepare(source, tmp_path / "other", quiet)
    prints = [ClassStore(path, f).fingerprint for path in (folder, tmp_path / "other") for f in (0.3, 0.4)]
    assert len(set(prints)) == 4


def test_read_header_returns_what_was_written(folder):
    header = read_header(folder)
    write_header(folder, header)
    assert read_header(folder) == header
    assert header.image_shape == (4, 4, 3)
    assert header.offsets == {"train": [0, 7, 14, 21, 28, 35], "test": [0, 2, 4, 6, 8, 10]}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [lambda p: p.write_bytes(p.read_bytes()[:-1]), lambda p: p.unlink()])
def test_truncated_file_is_rejected(folder, name, change):
    change(folder / f"{name}.bin")
    with pytest.raises(UserError, match=rf"{name}\.bin has .* bytes instead of .* prepare the store again"):
        ClassStore(folder, 0.3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 2),
        ("image_shape", 7),
        ("offsets", {"train": [0, 7, 14]}),
        ("offsets", {"train": [0, 7, 6, 35], "test": [0, 1, 2, 10]}),
        ("offsets", {"train": [0, 7, 14, 35], "test": [0, 10]}),
        ("surprise", 1),
    ],
)
def test_header_of_another_schema_is_rejected(folder, key, value):
    content = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**content, key: value}))
    with pytest.raises(UserError, match="prepare the store again"):
        ClassStore(folder, 0.3)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_corrupt_header_is_rejected(folder, text):
    (folder / HEADER).write_text(text)
    with pytest.raises(UserError, match="prepare the store again"):
        ClassStore(folder, 0.3)
