import errno
import fcntl
import os
import re

import numpy as np
import pytest
from helpers.sources import MemorySource, quiet

from common.data.class_store import HEADER, ClassStore, read_header
from common.data.prepare import image_keys, prepare
from common.errors import UserError


class Interrupted(Exception):
    pass


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prepare_gives_the_same_store_for_any_order(tmp_path):
    forward, backward = MemorySource(part=7), MemorySource(part=7)
    backward.content = [(images[::-1], labels[::-1]) for images, labels in backward.content[::-1]]
    backward.parts.reverse()
    assert prepare(forward, tmp_path / "a", quiet) == prepare(backward, tmp_path / "b", quiet)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_prepare_with_labels_from_one_gives_the_same_store(tmp_path):
    from_one = prepare(MemorySource(first_label=1), tmp_path / "a", quiet)
    assert from_one.fingerprint == prepare(MemorySource(first_label=0), tmp_path / "b", quiet).fingerprint


def test_prepare_leaves_only_the_store(tmp_path):
    header = prepare(MemorySource(), tmp_path / "store", quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert sorted(files(tmp_path / "store")) == [HEADER, "test.bin", "train.bin"]
    assert header == read_header(tmp_path / "store")
    assert header.classes == 5
    assert re.fullmatch("[0-9a-f]{64}", header.fingerprint)


def test_progress_reaches_its_total_in_every_pass(tmp_path):
    seen = []
    prepare(MemorySource(), tmp_path / "store", lambda *step: seen.append(step))
    for stage in ("checking", "writing", "verifying"):
        steps = [(done, total) for name, done, total in seen if name == stage]
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1] > 0
        assert steps == sorted(steps)


def test_prepare_of_a_finished_store_reads_nothing(tmp_path):
    source = MemorySource()
    header = prepare(source, tmp_path / "store", quiet)
    reads = source.reads
    assert prepare(source, tmp_path / "store", quiet) == header
    assert source.reads == reads == 2 * len(source.parts)


@pytest.mark.parametrize("moment", range(13))  # 5 calls while checking, 5 while writing, 3 while verifying
def test_prepare_interrupted_anywhere_resumes(tmp_path, moment):
    expected = prepare(MemorySource(), tmp_path / "whole", quiet)
    source, calls = MemorySource(), 0

    def interrupt(stage, done, total):
        nonlocal calls
        calls += 1
        if calls == moment + 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        prepare(source, tmp_path / "store", interrupt)
    assert prepare(source, tmp_path / "store", quiet) == expected
    assert files(tmp_path / "store") == files(tmp_path / "whole")
    assert source.reads == 2 * len(source.parts)


def test_prepare_discards_parts_of_another_source(tmp_path):
    first, second = MemorySource(seed=0), MemorySource(seed=1)
    second.read = lambda part: (_ for _ in ()).throw(Interrupted)
    with pytest.raises(Interrupted):
        prepare(second, tmp_path / "store", quiet)
    prepare(first, tmp_path / "store", quiet)
    store = ClassStore(tmp_path / "store", 0.5)
    assert sorted(image.tobytes() for image in store.images(0, "test")) == first.of(0, "test")


@pytest.mark.parametrize(("first_label", "wrong"), [(0, -1), (0, 5), (1, 0), (1, 6)])
def test_prepare_rejects_a_label_out_of_range(tmp_path, first_label, wrong):
    source = MemorySource(first_label=first_label)
    source.content[2][1][1] = wrong
    with pytest.raises(UserError, match=f"label {wrong} is outside {first_label} .. {first_label + 4}"):
        prepare(source, tmp_path / "store", quiet)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("name", "least"), [("train", 2), ("test", 1)])
def test_prepare_rejects_a_class_with_too_few_images(tmp_path, name, least):
    source = MemorySource(train=6, test=1, first_label=1)
    for file, (_, labels) in zip(source.parts, source.content):
        if file == name:
            labels[labels == 4] = 3
    if name == "train":
        source.content[0][1][0] = 4  # one image is not enough to be in two splits
    with pytest.raises(UserError, match=rf"1 of 5 classes have fewer than {least} {name} images .*label 4"):
        prepare(source, tmp_path / "store", quiet)


@pytest.mark.parametrize(
    "change",
    [
        lambda images, labels: (images.astype(np.float32), labels),
        lambda images, labels: (images[:, :-1], labels),
        lambda images, labels: (images, labels[:-1]),
    ],
)
def test_prepare_rejects_images_of_another_kind(tmp_path, change):
    source = MemorySource()
    source.content[0] = change(*source.content[0])
    with pytest.raises(UserError, match=r"part 1 of .* this is another data set"):
        prepare(source, tmp_path / "store", quiet)


def test_prepare_leaves_other_folders_alone(tmp_path):
    prepare(MemorySource(seed=0), tmp_path / "store", quiet)
    before = files(tmp_path / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    for name in ("store", "mine"):
        with pytest.raises(UserError, match="exists and is another store or folder"):
            prepare(MemorySource(seed=1), tmp_path / name, quiet)
    assert files(tmp_path / "store") == before
    assert files(tmp_path / "mine") == {"letter": b"dear"}


def test_prepare_leaves_a_partial_folder_of_the_users_alone(tmp_path):
    work = tmp_path / "store.partial"
    work.mkdir()
    (work / "download.zip").write_text("half")
    with pytest.raises(UserError, match=r"store\.partial is not an unfinished dataset of ours: move it"):
        prepare(MemorySource(), tmp_path / "store", quiet)
    assert files(work) == {"download.zip": b"half"}


def test_prepare_by_two_processes_is_rejected(tmp_path):
    work = tmp_path / "store.partial"
    work.mkdir()
    other = os.open(work, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process is preparing"):
        prepare(MemorySource(), tmp_path / "store", quiet)
    os.close(other)
    prepare(MemorySource(), tmp_path / "store", quiet)


def test_prepare_resumes_after_a_full_disk(tmp_path, monkeypatch):
    def full(handle, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = MemorySource()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match=r"No space left on device.*which resumes"):
            prepare(source, tmp_path / "store", quiet)
    prepare(source, tmp_path / "store", quiet)
    assert source.reads == 2 * len(source.parts)  # the scan was not repeated


@pytest.mark.parametrize("name", ["train", "test"])
def test_prepare_detects_images_that_the_disk_changed(tmp_path, name):
    def damage(stage, done, total):
        if (stage, done) == ("verifying", 0):
            path = tmp_path / "store.partial" / f"{name}.bin"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)

    with pytest.raises(UserError, match=f"{name}.bin differs from what was written"):
        prepare(MemorySource(), tmp_path / "store", damage)
    prepare(MemorySource(), tmp_path / "store", quiet)


def test_image_keys_differ_between_images():
    images = np.random.default_rng(0).integers(0, 256, (100, 2, 2, 3), dtype=np.uint8)
    keys = image_keys(images)
    assert len(set(keys.tolist())) == 100
    assert np.array_equal(image_keys(images[::-1]), keys[::-1])
    assert np.array_equal(image_keys(np.zeros((0, 2, 2, 3), np.uint8)), np.zeros(0, np.uint64))


def test_prepare_in_an_unusable_folder_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"store cannot be written \(.*\): free space or choose another folder"):
        prepare(MemorySource(), tmp_path / "file" / "store", quiet)
