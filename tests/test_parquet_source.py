"""Parquet files as hubs serve image sets: splits, columns, labels, odd images, and what is missing or corrupt."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.sources import quiet
from PIL import Image

from cluster.cli.main import main
from common.data.class_store import ClassStore, read_header
from common.data.parquet_source import Parquet
from common.data.prepare import prepare
from common.data.sources import open_source
from common.errors import UserError


def png(brightness, size=(3, 2), mode="RGB"):
    content = io.BytesIO()
    Image.new("RGB", size, (brightness,) * 3).convert(mode).save(content, "png")
    return content.getvalue()


def table(rows, names=None, image="image", label="label"):
    """Rows of label and encoded image, as the library `datasets` writes them."""
    images = pa.array([{"bytes": content, "path": f"{i}.png"} for i, (_, content) in enumerate(rows)])
    columns = {"id": pa.array(range(len(rows))), image: images, label: pa.array([row[0] for row in rows])}
    features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    return pa.table(columns).replace_schema_metadata(metadata)


def rows(*counts):
    """Images of class k have brightness k."""
    return [(k, png(k)) for k, count in enumerate(counts) for _ in range(count)]


def write(path, content, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, **options)
    return path


def stored(place, store, **options):
    source = open_source(str(place), **options)
    prepare(source, store, quiet)
    return source, ClassStore(store, valid_fraction=0.2)


def test_shards_of_a_hub_fill_the_store(tmp_path):
    for number in range(2):
        write(tmp_path / "in" / "data" / f"train-0000{number}-of-00002.parquet", table(rows(3, 2), ["cat", "dog"]))
    write(tmp_path / "in" / "data" / "test-00000-of-00001.parquet", table(rows(1, 2), ["cat", "dog"]))
    write(tmp_path / "in" / "data" / "extra-00000-of-00001.parquet", table(rows(1, 1), ["cat", "dog"]))
    source, store = stored(tmp_path / "in", tmp_path / "store")
    assert source.names == ["cat", "dog"] and store.image_shape == (2, 3, 3)
    assert [name.rsplit("/")[-1] for name in source.rejected] == ["extra-00000-of-00001.parquet"]
    assert read_header(tmp_path / "store").offsets == {"train": [0, 6, 10], "test": [0, 1, 3]}
    for k in range(2):
        assert all((store.images(k, split) == k).all() for split in ("train", "valid", "test"))


@pytest.mark.parametrize(
    "names", [("default/train/0000", "default/validation/0000"), ("train", "dev"), ("a/train", "a/val")]
)
def test_splits_are_found_in_names_and_folders(tmp_path, names):
    for name, content in zip(names, (rows(3, 3), rows(1, 2))):
        write(tmp_path / "in" / f"{name}.parquet", table(content))
    stored(tmp_path / "in", tmp_path / "store")
    assert read_header(tmp_path / "store").offsets == {"train": [0, 3, 6], "test": [0, 1, 3]}


def test_single_file_holds_out_a_tenth_of_each_class(tmp_path):
    shuffled = [rows(20, 30)[i] for i in np.random.default_rng(0).permutation(50)]
    path = write(tmp_path / "set.parquet", table(shuffled), row_group_size=7)
    _, store = stored(path, tmp_path / "store")
    assert read_header(tmp_path / "store").offsets == {"train": [0, 18, 45], "test": [0, 2, 5]}
    assert (store.images(1, "test") == 1).all()


def test_test_split_without_labels_is_not_used(tmp_path):
    write(tmp_path / "train.parquet", table(rows(3, 3), ["a", "b"]))
    write(tmp_path / "test.parquet", table([(-1, png(9))] * 4, ["a", "b"]))
    write(tmp_path / "validation.parquet", table(rows(1, 1), ["a", "b"]))
    source = Parquet(tmp_path)
    assert source.description.endswith("(test has no labels)")
    assert [int(source.read(part)[0].max()) for part in range(2)] == [1, 1]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_labels_of_text_are_sorted_classes(tmp_path, kind):
    content = table([(("zebra", "ant")[k], image) for k, image in rows(4, 5)])
    write(tmp_path / "a.parquet", content.set_column(2, "label", content["label"].cast(kind)))
    source = Parquet(tmp_path / "a.parquet")
    assert source.names == ["ant", "zebra"]
    images, labels = source.read(0)
    assert (images[:, 0, 0, 0] == 1 - labels).all()


def test_integers_without_names_are_the_values_that_occur(tmp_path):
    write(tmp_path / "a.parquet", table([((1000, 7)[k], image) for k, image in rows(4, 5)]))
    assert Parquet(tmp_path / "a.parquet").names == ["7", "1000"]


def test_label_column_is_chosen_where_there_are_several(tmp_path):
    fine, coarse = table(rows(3, 3), ["a", "b"], label="species"), table(rows(6), ["c"], label="genus")
    features = {"species": {"names": ["a", "b"]}, "genus": {"names": ["c"]}}
    both = fine.append_column("genus", coarse["genus"])
    both = both.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path = str(write(tmp_path / "a.parquet", both))
    with pytest.raises(UserError, match=r"several columns that may hold the labels \(species, genus\).*--label"):
        open_source(path)
    assert open_source(path, label="species").names == ["a", "b"]
    assert open_source(path, label="genus").names == ["c"]
    with pytest.raises(UserError, match=r"no column image of integers or strings: its columns are id \(int64\)"):
        open_source(path, label="image")


def test_odd_images_are_converted_or_left_out_by_name(tmp_path):
    odd = [(0, png(9, mode=mode)) for mode in ("L", "P", "RGBA", "I;16")]
    bad = [(0, b"no image"), (0, b""), (0, None), (0, png(9, size=(90, 90))[:60])]
    path = write(tmp_path / "a.parquet", table([*rows(5, 5), *odd, *bad, (None, png(7))]))
    source, store = stored(path, tmp_path / "store", size=2)
    assert store.max_count("train") + store.max_count("valid") + store.max_count("test") == 9
    names = [f"{path}, row {row} ({row}.png)" for row in range(14, 18)]
    assert source.rejected.keys() == {*names, f"{path}, 1 rows"}


def test_classes_that_lose_their_images_are_left_out(tmp_path):
    broken = [(1, b"no image")] * 3
    path = write(
        tmp_path / "a.parquet", table([*rows(5), *broken, *[(2, png(2))] * 5, (3, png(3))], ["a", "b", "c", "d"])
    )
    source, store = stored(path, tmp_path / "store")
    assert source.names == ["a", "b", "c"] and store.classes == 2
    assert source.rejected["b"] == "a class with 0 images (0 train, 0 test)"
    assert source.rejected["d"] == "a class with 1 images (0 train, 1 test)"
    assert (store.images(1, "train") == 2).all()


def test_columns_of_plain_bytes_are_images(tmp_path):
    content = table(rows(4, 4))
    path = write(tmp_path / "a.parquet", pa.table({"img": [png(k) for k, _ in rows(4, 4)], "y": content["label"]}))
    assert Parquet(path).read(0)[0].shape == (6, 2, 3, 3)


def test_images_of_different_sizes_need_a_size(tmp_path):
    path = write(tmp_path / "a.parquet", table([*rows(3, 3), (0, png(0, size=(5, 5)))]))
    with pytest.raises(UserError, match=r"differ in size, or cannot be read: give the size that .* --size"):
        Parquet(path)
    assert Parquet(path, size=4).read(0)[0].shape[1:] == (4, 4, 3)


def test_parts_bound_memory_and_do_not_change_the_store(tmp_path, monkeypatch):
    shuffled = [rows(20, 30)[i] for i in np.random.default_rng(0).permutation(50)]
    path = write(tmp_path / "a.parquet", table(shuffled), row_group_size=11)
    whole = prepare(Parquet(path), tmp_path / "whole", quiet)
    monkeypatch.setattr("common.data.parquet_source.PART_BYTES", 4 * 18)
    monkeypatch.setattr("common.data.parquet_source.ROWS", 3)
    source = Parquet(path)
    assert max(len(source.read(part)[1]) for part in reversed(range(len(source.parts)))) == 4
    assert prepare(source, tmp_path / "pieces", quiet).fingerprint == whole.fingerprint


def test_interrupted_preparation_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr("common.data.parquet_source.PART_BYTES", 4 * 18)
    path = write(tmp_path / "a.parquet", table(rows(20, 30)))
    whole = prepare(Parquet(path), tmp_path / "whole", quiet)

    def interrupt(stage, done, total):
        if (stage, done) == ("writing", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(Parquet(path), tmp_path / "store", interrupt)
    source, reads = Parquet(path), []
    monkeypatch.setattr(source, "read", lambda part: reads.append(part) or Parquet.read(source, part))
    assert prepare(source, tmp_path / "store", quiet).fingerprint == whole.fingerprint
    assert reads == list(range(5, len(source.parts)))


def test_ten_thousand_classes_are_prepared(tmp_path, monkeypatch):
    def decode(file, shape):  # the decoding of 60,000 images would take most of a minute
        return np.full(shape, file.getvalue()[-1], np.uint8)

    monkeypatch.setattr("common.data.parquet_source.decode_any", decode)
    header = png(0)
    content = [(k, header + bytes([k % 256])) for k in range(10_000) for _ in range(3)]
    path = write(tmp_path / "a.parquet", table(content, [f"class {k}" for k in range(10_000)]))
    _, store = stored(path, tmp_path / "store")
    assert store.classes == 10_000 and len(store.images(9_999, "train")) == 1
    assert all((store.images(k, split) == k % 256).all() for k in (0, 5_000, 9_999) for split in ("train", "test"))


def test_identity_changes_with_a_file_and_the_size(tmp_path):
    write(tmp_path / "a.parquet", table(rows(4, 4)))
    identity = Parquet(tmp_path).identity
    assert Parquet(tmp_path).identity == identity != Parquet(tmp_path, size=2).identity
    write(tmp_path / "a.parquet", table(rows(4, 5)))
    assert Parquet(tmp_path).identity != identity


def truncated(folder):
    path = write(folder / "a.parquet", table(rows(4, 4)))
    path.write_bytes(path.read_bytes()[:-20])


def corrupt(folder):
    path = write(folder / "a.parquet", table(rows(4, 4)), compression="snappy")
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)


def pointer(folder):
    (folder / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 17\n")


def missing_shard(folder):
    write(folder / "train-00001-of-00003.parquet", table(rows(4, 4)))


def several_sets(folder):
    for name in ("first", "second"):
        write(folder / name / "train.parquet", table(rows(4, 4)))


def only_test(folder):
    write(folder / "test.parquet", table(rows(4, 4)))


def other_columns(folder):
    write(folder / "a.parquet", table(rows(4, 4)))
    write(folder / "b.parquet", table(rows(4, 4), label="other"))


def other_kind(folder):
    write(folder / "a.parquet", table(rows(4, 4)))
    write(folder / "b.parquet", table([(str(k), image) for k, image in rows(4, 4)]))


def unknown_label(folder):
    write(folder / "train.parquet", table(rows(4, 4)))
    write(folder / "test.parquet", table(rows(1, 1, 1)))


def label_beyond_names(folder):
    write(folder / "a.parquet", table(rows(4, 4), ["only"]))


def no_images(folder):
    write(folder / "a.parquet", pa.table({"text": ["a", "b"], "label": [0, 1]}))


def no_labels(folder):
    write(folder / "a.parquet", table(rows(4, 4)).select(["image"]))


def small_classes(folder):
    write(folder / "a.parquet", table(rows(2, 1)))


def no_rows(folder):
    write(folder / "a.parquet", table(rows(4, 4))[:0])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (truncated, "a.parquet cannot be read .*: it is no Parquet file, or truncated"),
        (corrupt, "a.parquet cannot be read .*: the file is corrupt"),
        (pointer, "a.parquet is a pointer of git-lfs and not the file itself: run `git lfs pull`"),
        (missing_shard, r"2 of 3 files .*train-\*.parquet are missing \(the first is number 0\): fetch them"),
        (several_sets, r"several data sets: give the folder of one of them \(.*first, .*second\)"),
        (only_test, "splits test and validation only: add those of train"),
        (other_columns, "b.parquet does not have the columns image and label .int64. of the first file"),
        (other_kind, "b.parquet does not have the columns image and label .int64. of the first file"),
        (unknown_label, r"test.parquet has the label 2 \(row 2\), which is not among the 2 classes"),
        (label_beyond_names, r"a.parquet has the label 1 \(row 4\), which is not among the 1 classes"),
        (no_images, r"no column of images: its columns are text \(string\), label \(int64\), but encoded images"),
        (no_labels, "no column of labels"),
        (small_classes, "no class has two training images and a test image"),
        (no_rows, "no class has two training images and a test image"),
    ],
)
def test_faulty_files_are_a_sentence(tmp_path, make, sentence):
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError, match=sentence):
        stored(folder, tmp_path / "store")


def test_prepare_command_reads_parquet_and_names_what_is_wrong(tmp_path, capsys):
    path = write(tmp_path / "a.parquet", table([*rows(10, 10), (0, b"no image")]))
    assert main(["data", "prepare", str(path), str(tmp_path / "store")]) == 0
    err = capsys.readouterr().err
    assert "1 images or classes were left out" in err and "row 20 (20.png): cannot identify image" in err
    assert main(["data", "prepare", str(tmp_path / "store"), str(tmp_path / "other"), "--label", "x"]) == 2
    assert "--label chooses a column of Parquet files, and there are none in" in capsys.readouterr().err
