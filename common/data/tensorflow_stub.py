"""A stub of the functions of TensorFlow with which tensorflow-datasets prepares a set of images.

Builders open files by `tf.io.gfile` and encode arrays by `tf.image.encode_png`; without TensorFlow, version 4.9.10 can
prepare neither imagenet_resized nor cifar10. On local files, Python's own functions and Pillow do the same. A builder
that needs more of TensorFlow gets an ImportError with the function's name. The stub is installed in the module object
that tensorflow-datasets imports as `tf`, inside `replaced_tensorflow` only, and only where TensorFlow is not installed.
"""

import glob
import importlib.util
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from tensorflow_datasets.core.utils import lazy_imports_utils


class Stub:
    """A module with the given attributes; any other attribute raises ImportError."""

    def __init__(self, name: str, **attributes: Any):
        self._name = name
        self.__dict__.update(attributes)

    def __getattr__(self, attribute: str) -> Any:
        raise ImportError(f"{self._name}.{attribute} needs TensorFlow, which is not installed")


@contextmanager
def replaced_tensorflow() -> Iterator[None]:
    """Inside this context, tensorflow-datasets uses the stub in place of TensorFlow."""
    if importlib.util.find_spec("tensorflow") is not None:
        yield
        return
    lazy = lazy_imports_utils.tensorflow
    lazy.__dict__["_module"] = make_stub()  # the cached property that holds the imported module
    try:
        yield
    finally:
        del lazy.__dict__["_module"]


def make_stub() -> Stub:
    """The functions of the module `tensorflow` that image builders use."""
    gfile = Stub(
        "tf.io.gfile",
        GFile=open,
        copy=lambda source, target, overwrite=False: shutil.copyfile(source, target),
        exists=os.path.exists,
        glob=glob.glob,
        isdir=os.path.isdir,
        listdir=os.listdir,
        makedirs=lambda path: Path(path).mkdir(parents=True, exist_ok=True),
        walk=os.walk,
    )
    image = Stub("tf.image", encode_png=_encoder("png"), encode_jpeg=_encoder("jpeg"))
    compat = Stub("tf.compat", as_text=_as_text, as_bytes=_as_bytes)
    return Stub("tf", executing_eagerly=lambda: True, io=Stub("tf.io", gfile=gfile), image=image, compat=compat)


def _encoder(kind: str) -> Any:
    def encode(pixels: np.ndarray) -> SimpleNamespace:
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format=kind)
        return SimpleNamespace(numpy=buffer.getvalue)

    return encode


def _as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
