import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.archives import write_archives
from helpers.sources import quiet
from PIL import Image
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download.download_manager import DownloadManager
from tensorflow_datasets.core.download.downloader import DownloadResult, _Downloader

from common.data import tfds_source
from common.data.class_store import ClassStore
from common.data.imagenet_archives import open_archives
from common.data.prepare import prepare
from common.data.tfds_source import decode, open_tfds
from common.errors import UserError


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A folder whose files answer downloads of the same name: the download and its checksum, nothing else."""
    folder = tmp_path / "web"
    folder.mkdir()

    def download(self, url, destination_path, verify=True):
        path = Path(destination_path) / url.rsplit("/", 1)[1]
        shutil.copy(folder / path.name, path)
        return DownloadResult(path=path, url_info=checksums.compute_url_info(path))

    monkeypatch.setattr(_Downloader, "_sync_download", download)
    monkeypatch.setattr(DownloadManager, "_register_or_validate_checksums", lambda self, **_: None)
    return folder


def test_tfds_and_archives_give_the_same_store(tmp_path, web, capsys):
    write_archives(web, size=8, train=2, test=1)
    source = open_tfds("imagenet_resized/8x8", tmp_path / "tfds")
    assert capsys.readouterr().out == ""
    assert "tensorflow" not in sys.modules
    by_tfds = prepare(source, tmp_path / "a", quiet)
    by_archive = prepare(open_archives(web), tmp_path / "b", quiet)
    assert by_tfds.fingerprint == by_archive.fingerprint
    for name in ("train.bin", "test.bin"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_open_tfds_does_not_download_a_prepared_set_again(tmp_path, web):
    write_archives(web, size=8, train=2, test=1)
    first = open_tfds("imagenet_resized/8x8", tmp_path / "tfds")
    for path in web.iterdir():
        path.unlink()
    again = open_tfds("imagenet_resized/8x8", tmp_path / "tfds")
    assert again.identity == first.identity != open_tfds("imagenet_resized/8x8", tmp_path / "tfds", 4).identity
    assert again.description == "imagenet_resized/8x8/0.1.0"


def test_format_without_random_access_is_a_sentence(tmp_path, web):
    write_archives(web, size=8, train=2, test=1)
    open_tfds("imagenet_resized/8x8", tmp_path / "tfds")
    path = next((tmp_path / "tfds").glob("**/dataset_info.json"))
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"imagenet_resized/8x8 cannot be prepared .*delete the data"):
        open_tfds("imagenet_resized/8x8", tmp_path / "tfds")


def write_cifar10(folder, count=40):
    """The binary archive of CIFAR-10: a label byte and 3,072 planar bytes for each image."""
    rng = np.random.default_rng(0)
    members = {"batches.meta.txt": "\n".join(f"class {i}" for i in range(10)).encode()}
    images = {}
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        rows = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(count) % 10
        members[name] = rows.tobytes()
        images[name] = rows
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return images


def test_cifar10_is_prepared_without_tensorflow(tmp_path, web):
    rows = write_cifar10(web)["test_batch.bin"]
    prepare(open_tfds("cifar10", tmp_path / "tfds"), tmp_path / "store", quiet)
    store = ClassStore(tmp_path / "store", valid_fraction=0.2)
    assert (store.classes, store.image_shape, store.max_count("valid")) == (10, (32, 32, 3), 4)
    expected = rows[rows[:, 0] == 7, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert sorted(x.tobytes() for x in store.images(7, "test")) == sorted(x.tobytes() for x in expected)


class Grey(tfds.core.GeneratorBasedBuilder):
    """Images of different sizes and one channel, in one split: class k is all of brightness k."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "picture": tfds.features.Image(shape=(None, None, 1)),
            "kind": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("picture", "kind")
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(300):
            yield i, {"picture": np.full((4 + i % 5, 6, 1), i % 3, np.uint8), "kind": i % 3}


def test_single_split_is_resized_and_a_tenth_is_held_out(tmp_path):
    source = open_tfds("grey", tmp_path / "tfds", size=8)
    assert source.image_shape == (8, 8, 1)
    assert [len(source.read(part)[1]) for part in range(len(source.parts))] == [270, 30]
    assert source.parts == ["train", "test"]
    for part in range(2):
        images, labels = source.read(part)
        assert (images == labels[:, None, None, None]).all()
    prepare(source, tmp_path / "store", quiet)


def test_read_names_images_that_cannot_be_decoded(tmp_path, monkeypatch):
    source, calls = open_tfds("grey", tmp_path / "tfds", size=8), iter(range(1000))

    def torn(content, shape):
        return decode(content[:40] if next(calls) == 3 else content, shape)

    monkeypatch.setattr(tfds_source, "decode", torn)
    images, labels = source.read(0)
    assert len(images) == len(labels) == 269
    [(name, why)] = source.rejected.items()
    assert name == "train[10%:][3]" and why


def test_parts_are_bounded_in_bytes(tmp_path, monkeypatch):
    whole = open_tfds("grey", tmp_path / "tfds", size=8)
    monkeypatch.setattr(tfds_source, "PART_BYTES", 8 * 8 * 100)
    bounded = open_tfds("grey", tmp_path / "tfds", size=8)
    counts = [len(bounded.read(part)[1]) for part in range(len(bounded.parts))]
    assert max(counts) <= 100 and sum(counts) == 300 and bounded.identity != whole.identity
    assert bounded.parts == sorted(bounded.parts, reverse=True)


class Competition(tfds.core.GeneratorBasedBuilder):
    """A set whose test split is published without labels, as ImageNet's."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("with_validation", "without")]

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        splits = {
            "train": self._generate_examples(0),
            "validation": self._generate_examples(1),
            "test": self._generate_examples(2),
        }
        if self.builder_config.name == "without":
            del splits["validation"]
        return splits

    def _generate_examples(self, shade):
        for i in range(90):
            yield i, {"image": np.full((4, 4, 3), shade, np.uint8), "label": -1 if shade == 2 else i % 3}


def test_unlabelled_test_split_gives_way_to_validation(tmp_path):
    source = open_tfds("competition/with_validation", tmp_path / "tfds")
    assert source.description.endswith("(test has no labels: validation is used in its place)")
    header = prepare(source, tmp_path / "store", quiet)
    assert header.offsets["test"] == header.offsets["train"] == [0, 30, 60, 90]
    store = ClassStore(tmp_path / "store", valid_fraction=0.2)
    assert (store.images(0, "train") == 0).all() and (store.images(0, "test") == 1).all()


def test_unlabelled_test_split_alone_gives_way_to_a_tenth(tmp_path):
    source = open_tfds("competition/without", tmp_path / "tfds")
    assert [len(source.read(part)[1]) for part in range(2)] == [81, 9]
    assert all((source.read(part)[1] >= 0).all() for part in range(2))


def test_images_of_different_sizes_need_a_size(tmp_path):
    with pytest.raises(UserError, match="grey differ in size: give the image size"):
        open_tfds("grey", tmp_path / "tfds")


def encoded(pixels, mode=None):
    buffer = BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG" if mode is None else "TIFF")
    return buffer.getvalue()


def test_decode_to_smaller_shape_averages_pixels():
    image = np.array([[0, 100], [50, 250]], np.uint8)
    assert decode(encoded(image), (1, 1, 1)) == 100
    colours = np.stack([image, 255 - image, image // 2], axis=-1)
    assert np.abs(decode(encoded(colours), (1, 1, 3)).ravel() - np.array([100, 155, 50])).max() <= 1
    assert np.array_equal(decode(encoded(colours), (2, 2, 3)), colours)
    assert np.array_equal(decode(encoded(np.repeat(colours, 4, axis=1)), (2, 2, 3)), colours)
    assert decode(encoded(np.repeat(colours, 4, axis=1)), (2, 8, 3)).shape == (2, 8, 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_decode_converts_images_of_other_modes(mode):
    grey = np.full((2, 2, 3), 90, np.uint8)
    assert np.array_equal(decode(encoded(grey, mode), (2, 2, 3)), grey)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("imagenet_rezised", "has no 'imagenet_rezised'.*choose one of its image classification sets"),
        ("imagenet_resized/33x33", "has no 'imagenet_resized/33x33'"),
        ("ag_news_subset", "ag_news_subset does not classify images"),
        ("coco", r"coco cannot be prepared without TensorFlow \(tf\..*install `tensorflow`"),
        ("imagenet2012", r"imagenet2012 differ in size"),
    ],
)
def test_open_tfds_of_an_unusable_set_is_a_sentence(tmp_path, name, sentence):
    with pytest.raises(UserError, match=sentence):
        open_tfds(name, tmp_path / "tfds")


def test_open_tfds_with_failed_download_is_a_sentence(tmp_path, web):
    with pytest.raises(UserError, match=r"imagenet_resized/8x8 cannot be prepared.*Imagenet8_train_npz.zip"):
        open_tfds("imagenet_resized/8x8", tmp_path / "tfds")


def test_open_tfds_with_truncated_download_is_a_sentence(tmp_path, web):
    write_archives(web, size=8, train=2, test=1)
    whole = (web / "Imagenet8_val_npz.zip").read_bytes()
    (web / "Imagenet8_val_npz.zip").write_bytes(whole[:1000])
    with pytest.raises(UserError, match="imagenet_resized/8x8 cannot be prepared"):
        open_tfds("imagenet_resized/8x8", tmp_path / "tfds")


def test_reading_a_store_does_not_import_tensorflow():
    code = (
        "import sys, common.data.dataset, common.data.class_store; "
        "sys.exit(any(m.startswith(('tensorflow', 'array_record', 'PIL')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
