import io

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.core.utils import lazy_imports_utils

from common.data import tensorflow_stub
from common.data.tensorflow_stub import make_stub, replaced_tensorflow


def test_stub_is_installed_inside_the_context_only():
    with replaced_tensorflow():
        assert lazy_imports_utils.tensorflow.executing_eagerly()
    with pytest.raises(ImportError):
        lazy_imports_utils.tensorflow.executing_eagerly()


def test_stub_is_removed_after_an_error():
    with pytest.raises(KeyError), replaced_tensorflow():
        raise KeyError
    assert "_module" not in lazy_imports_utils.tensorflow.__dict__


def test_stub_leaves_an_installed_tensorflow_alone(monkeypatch):
    monkeypatch.setattr(tensorflow_stub.importlib.util, "find_spec", lambda name: name)
    with replaced_tensorflow():
        assert "_module" not in lazy_imports_utils.tensorflow.__dict__


@pytest.mark.parametrize("name", ["tf.image.resize", "tf.io.gfile.stat", "tf.data"])
def test_stub_without_a_function_names_it(name):
    value = make_stub()
    with pytest.raises(ImportError, match=f"{name} needs TensorFlow"):
        for part in name.split(".")[1:]:
            value = getattr(value, part)


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 1), (5, 4, 4)])
def test_encode_png_keeps_every_pixel(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    encoded = make_stub().image.encode_png(pixels).numpy()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))).reshape(shape), pixels)


def test_encode_jpeg_is_read_as_jpeg():
    encoded = make_stub().image.encode_jpeg(np.full((8, 8, 3), 90, np.uint8)).numpy()
    image = Image.open(io.BytesIO(encoded))
    assert image.format == "JPEG"
    assert np.abs(np.asarray(image).astype(int) - 90).max() <= 2


def test_gfile_reads_writes_and_lists_files(tmp_path):
    gfile = make_stub().io.gfile
    gfile.makedirs(str(tmp_path / "a" / "b"))
    with gfile.GFile(tmp_path / "a" / "x", "wb") as file:
        file.write(b"1")
    gfile.copy(tmp_path / "a" / "x", tmp_path / "a" / "y", overwrite=True)
    assert sorted(gfile.listdir(tmp_path / "a")) == ["b", "x", "y"]
    assert gfile.glob(str(tmp_path / "a" / "[xy]"))
    assert gfile.exists(tmp_path / "a" / "y")
    assert gfile.isdir(tmp_path / "a")
    assert next(gfile.walk(tmp_path))[1] == ["a"]


def test_compat_converts_text_and_bytes():
    compat = make_stub().compat
    assert compat.as_text(b"\xc3\xa9") == compat.as_text("é") == "é"
    assert compat.as_bytes("é") == compat.as_bytes(b"\xc3\xa9") == b"\xc3\xa9"
