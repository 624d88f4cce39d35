"""Class folders as people have them: layouts, odd images, odd names, and classes that are too small."""

import numpy as np
import pytest
from helpers.sources import quiet
from PIL import Image

from cluster.cli.main import main
from common.data.class_store import ClassStore, read_header
from common.data.image_folder import find_layout, open_image_folder
from common.data.prepare import prepare
from common.data.sources import open_source
from common.errors import UserError


def paint(path, colour=(90, 30, 200), size=(6, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


def fill(folder, counts, suffix="png", size=(6, 4)):
    """Class k of `counts` has images of brightness k."""
    for k, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            paint(folder / name / f"{i}.{suffix}", (k, k, k), size)


def stored(folder, store, size=None):
    """The source after its preparation, and the store."""
    source = open_source(str(folder), size=size)
    prepare(source, store, quiet)
    return source, ClassStore(store, valid_fraction=0.2)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "PNG"])
def test_class_folders_hold_out_a_tenth_of_each_class(tmp_path, suffix):
    fill(tmp_path / "in", {"cat": 20, "dog": 30}, suffix)
    source, store = stored(tmp_path / "in", tmp_path / "store")
    assert (source.names, store.image_shape, source.rejected) == (["cat", "dog"], (4, 6, 3), {})
    assert read_header(tmp_path / "store").offsets == {"train": [0, 18, 45], "test": [0, 2, 5]}
    for k in range(2):
        assert all((store.images(k, split) == k).all() for split in ("train", "valid", "test"))


@pytest.mark.parametrize("held_out", ["test", "val", "validation"])
def test_train_and_test_folders_are_kept(tmp_path, held_out):
    fill(tmp_path / "in" / "train", {"a": 3, "b": 4})
    fill(tmp_path / "in" / held_out, {"a": 1, "b": 2})
    stored(tmp_path / "in", tmp_path / "store")
    assert read_header(tmp_path / "store").offsets == {"train": [0, 3, 7], "test": [0, 1, 3]}


def test_test_folder_takes_precedence_unless_it_is_unlabelled(tmp_path):
    fill(tmp_path / "train", {"a": 3, "b": 3})
    fill(tmp_path / "val", {"a": 1, "b": 1})
    paint(tmp_path / "test" / "0.png")
    assert [len(paths) for paths in find_layout(tmp_path).files["test"].values()] == [1, 1]
    fill(tmp_path / "test", {"a": 2, "b": 2})
    assert [len(paths) for paths in find_layout(tmp_path).files["test"].values()] == [2, 2]


def test_test_class_without_training_images_is_rejected(tmp_path):
    fill(tmp_path / "train", {"a": 3})
    fill(tmp_path / "test", {"a": 1, "b": 1})
    with pytest.raises(UserError, match=r"test has classes that .*train has not \(b\)"):
        find_layout(tmp_path)


def test_small_and_empty_classes_are_left_out_by_name(tmp_path):
    fill(tmp_path, {"a": 10, "empty": 0, "one": 1, "two": 2, "three": 3})
    layout = find_layout(tmp_path)
    assert list(layout.files["train"]) == list(layout.files["test"]) == ["a", "three"]
    assert layout.left_out["one"] == "a class with 1 images (0 train, 1 test)"
    assert set(open_image_folder(tmp_path, layout).rejected) == {"empty", "one", "two"}


def test_folder_with_small_classes_only_is_a_sentence(tmp_path):
    fill(tmp_path, {"a": 2, "b": 1})
    with pytest.raises(UserError, match=r"no class in .* has 3 images or more: add images"):
        open_source(str(tmp_path))


def test_names_links_and_hidden_files(tmp_path):
    fill(tmp_path / "in", {"śnieg ☃": 5, "b\nc": 5, ".git": 5, "__MACOSX": 5})
    paint(tmp_path / "in" / "b\nc" / ".hidden.png")
    (tmp_path / "in" / "b\nc" / "notes.txt").write_text("no image")
    paint(tmp_path / "elsewhere" / "x" / "deep" / "0.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere" / "x")
    (tmp_path / "elsewhere" / "x" / "1.png").symlink_to(tmp_path / "elsewhere" / "x" / "deep" / "0.png")
    (tmp_path / "elsewhere" / "x" / "2.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "elsewhere" / "x" / "deep" / "loop").symlink_to(tmp_path / "elsewhere")
    layout = find_layout(tmp_path / "in")
    found = {n: len(layout.files["train"][n]) + len(layout.files["test"][n]) for n in layout.files["train"]}
    assert found == {"śnieg ☃": 5, "b\nc": 5, "linked": 3}
    assert open_source(str(tmp_path / "in")).identity  # of the link to nothing too, which is left out when it is read


def test_odd_images_are_converted_or_left_out_by_name(tmp_path):
    folder = tmp_path / "in" / "a"
    fill(tmp_path / "in", {"a": 20, "b": 20}, size=(4, 4))
    pixels = np.full((4, 4), 90, np.uint8)
    Image.fromarray(pixels).save(folder / "grey.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(np.full((4, 4, 4), 90, np.uint8), "RGBA").save(folder / "alpha.png")
    Image.fromarray(np.stack([255 - pixels] * 3 + [0 * pixels], -1), "CMYK").save(folder / "cmyk.jpg", quality=100)
    Image.fromarray(np.stack([pixels] * 3, -1)).quantize(4).save(folder / "palette.gif")
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(folder / "float.tif")
    (folder / "text.jpg").write_text("no image at all")
    paint(folder / "cut.jpg", size=(300, 300))
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:700])
    source, store = stored(tmp_path / "in", tmp_path / "store", size=4)
    assert {name.rsplit("/")[-1] for name in source.rejected} == {"float.tif", "text.jpg", "cut.jpg"}
    images = np.concatenate([store.images(0, split) for split in ("train", "valid", "test")])
    assert len(images) == 25
    converted = images[images.max(axis=(1, 2, 3)) > 0]
    assert len(converted) == 5 and np.abs(converted.astype(int) - 90).max() <= 2


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (2, 3))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees clockwise: its first pixel is at the upper right
    for i in range(10):
        (tmp_path / "in" / "a").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "in" / "a" / f"{i}.png", exif=exif)
    _, store = stored(tmp_path / "in", tmp_path / "store")
    assert store.image_shape == (2, 3, 3)
    assert (store.images(0, "train")[:, 0, 2] == 255).all() and store.images(0, "train").sum() == 7 * 3 * 255


def test_images_of_different_sizes_need_a_size(tmp_path):
    fill(tmp_path / "in", {"a": 5})
    fill(tmp_path / "in", {"b": 5}, size=(8, 8))
    with pytest.raises(UserError, match="differ in size: give the size that they are resized to, with --size"):
        open_source(str(tmp_path / "in"))
    assert stored(tmp_path / "in", tmp_path / "store", size=4)[1].image_shape == (4, 4, 3)


def test_parts_bound_memory_and_do_not_change_the_store(tmp_path, monkeypatch):
    fill(tmp_path / "in", {f"{k:03}": 4 for k in range(50)}, size=(4, 4))
    _, _ = stored(tmp_path / "in", tmp_path / "whole")
    monkeypatch.setattr("common.data.image_folder.PART_BYTES", 7 * 4 * 4 * 3)
    source, _ = stored(tmp_path / "in", tmp_path / "pieces")
    assert len(source.parts) == 22 + 8 and max(len(source.read(part)[1]) for part in range(30)) == 7
    assert read_header(tmp_path / "pieces").fingerprint == read_header(tmp_path / "whole").fingerprint


def test_identity_changes_with_a_file(tmp_path):
    fill(tmp_path, {"a": 5, "b": 5})
    identity = open_source(str(tmp_path)).identity
    assert open_source(str(tmp_path)).identity == identity
    paint(tmp_path / "a" / "0.png", (7, 7, 7))
    changed = open_source(str(tmp_path)).identity
    (tmp_path / "b" / "0.png").rename(tmp_path / "a" / "9.png")
    assert len({identity, changed, open_source(str(tmp_path)).identity}) == 3


def test_files_that_vanish_during_preparation_are_a_sentence(tmp_path):
    fill(tmp_path / "in", {"a": 5, "b": 5})

    def remove(stage, done, total):
        if (stage, done) == ("writing", 0):
            (tmp_path / "in" / "a" / "0.png").unlink(missing_ok=True)
            (tmp_path / "in" / "a" / "1.png").unlink(missing_ok=True)

    with pytest.raises(UserError, match="changed while they were read: run the same command again"):
        prepare(open_source(str(tmp_path / "in")), tmp_path / "store", remove)


def test_prepare_command_counts_what_it_left_out(tmp_path, capsys):
    fill(tmp_path / "in", {"a": 10, "b": 10, "one": 1})
    (tmp_path / "in" / "a" / "x.png").write_text("")
    assert main(["data", "prepare", str(tmp_path / "in"), str(tmp_path / "store")]) == 0
    err = capsys.readouterr().err
    assert "2 images or classes were left out" in err and "one: a class with 1 images" in err and "a/x.png: " in err


def test_hostile_image_names_are_escaped_on_the_terminal(tmp_path, capsys):
    source = tmp_path / "source"
    fill(source, {"one": 12, "two": 12})
    name = "a\x1b]0;title\x07\rb.png"
    (source / "one" / name).write_bytes(b"no image")
    assert main(["data", "prepare", str(source), str(tmp_path / "store")]) == 0
    told = capsys.readouterr().err
    assert "a\\x1b]0;title\\x07\\rb.png" in told and not {"\x1b", "\x07", "\r"} & set(told)
