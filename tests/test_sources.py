"""Recognition of sources: each usual mistake gets a sentence that says what was found and what to do."""

import pytest
from helpers.archives import write_archives
from helpers.sources import MemorySource, quiet
from PIL import Image

from common.data.prepare import prepare
from common.data.sources import open_source
from common.errors import UserError

TRAIN, VAL = "Imagenet8_train_npz.zip", "Imagenet8_val_npz.zip"


def rejected(path, sentence, size=None):
    with pytest.raises(UserError, match=sentence):
        open_source(str(path), size=size)


def test_folder_of_archives_is_opened_with_any_spelling(tmp_path):
    write_archives(tmp_path, size=8, train=2)
    for name in (str(tmp_path), f"{tmp_path}/"):
        assert open_source(name).image_shape == open_source(name, size=8).image_shape == (8, 8, 3)


def test_size_that_is_not_there_names_the_one_that_is(tmp_path):
    write_archives(tmp_path, size=8, train=2)
    rejected(tmp_path, "holds images of size 8, not 32: leave --size out, or download size 32", size=32)


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_path_of_one_archive_names_its_folder(tmp_path, name):
    write_archives(tmp_path, size=8, train=2)
    rejected(tmp_path / name, f"{name} is one file of a set: give the folder .* {tmp_path}")


@pytest.mark.parametrize(
    "names",
    [("Imagenet8_train.zip", "Imagenet8_val.zip"), tuple(f"train_data_batch_{n}" for n in range(1, 11)), ("val_data",)],
)
def test_pickle_format_is_named_and_not_read(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"cos\nsystem\n")
    sentence = rf"pickle format of downsampled ImageNet \({min(names)}.*can run code.*download the npz format"
    rejected(tmp_path, sentence)
    rejected(tmp_path / names[0], sentence)


def test_unfinished_download_is_named(tmp_path):
    (tmp_path / f"{TRAIN}.crdownload").write_bytes(b"PK")
    rejected(tmp_path, rf"unfinished download \({TRAIN}.crdownload\): complete it")


def test_parent_of_the_archives_names_their_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    write_archives(tmp_path / "deep", size=8, train=2)
    rejected(tmp_path, f"the official archives are in {tmp_path / 'deep'}: give that folder")


@pytest.mark.parametrize("inside", ["", "train"])
def test_parent_of_class_folders_names_their_folder(tmp_path, inside):
    for name in ("cat", "dog"):
        folder = tmp_path / "tiny-200" / inside / name
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (2, 2)).save(folder / f"{number}.png")
    rejected(tmp_path, f"the class folders are in {tmp_path / 'tiny-200'}: give that folder")
    assert open_source(str(tmp_path / "tiny-200")).classes == 2


def test_class_store_is_used_as_it_is(tmp_path):
    prepare(MemorySource(), tmp_path / "store", quiet)
    rejected(tmp_path / "store", "store is a class store already: use it as it is, with dataset.path=")


def test_other_contents_are_listed(tmp_path):
    for number in range(7):
        (tmp_path / f"letter-{number}.txt").write_text("dear")
    rejected(tmp_path, r"holds letter-0.txt, .*letter-4.txt and 2 more, but neither .*: give a folder")


def test_empty_folder_is_a_sentence(tmp_path):
    rejected(tmp_path, "holds nothing, but neither class folders with images, Parquet files nor the official archives")


def test_path_that_does_not_exist_is_a_sentence(tmp_path):
    rejected(tmp_path / "gone", r"gone does not exist: give a folder, or tfds:NAME")
    rejected("tfds.imagenet", "tfds.imagenet does not exist")


def test_file_of_another_kind_is_a_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    rejected(tmp_path / "notes.txt", "notes.txt is a file: give a folder, a .npz or .parquet file, or tfds:NAME")
