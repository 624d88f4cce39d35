"""A stand-in for the little of TensorFlow that tensorflow-datasets uses while it prepares a set of images.

Its builders open files by `tf.io.gfile` and encode arrays by `tf.image.encode_png`: on local files, Python's own
functions and pillow do the same, and nobody has to install TensorFlow to read an archive. A builder that needs more of
TensorFlow gets an ImportError which names it. The stand-in lives in the one module object that all of
tensorflow-datasets imports as `tf`, only inside `replaced_tensorflow`, and only where TensorFlow is not installed.
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


class StandIn:
    """Attributes as given; any other one raises ImportError."""

    def __init__(self, name: str, **attributes: Any):
        self._name = name
        self.__dict__.update(attributes)

    def __getattr__(self, attribute: str) -> Any:
        raise ImportError(f"{self._name}.{attribute} needs TensorFlow, which is not installed")


@contextmanager
def replaced_tensorflow() -> Iterator[None]:
    """While it is open, tensorflow-datasets finds the stand-in where it would import TensorFlow."""
    if importlib.util.find_spec("tensorflow") is not None:
        yield
        return
    lazy = lazy_imports_utils.tensorflow
    lazy.__dict__["_module"] = stand_in()  # the cached property that holds the imported module
    try:
        yield
    finally:
        del lazy.__dict__["_module"]


def stand_in() -> StandIn:
    """What the image builders use of the module `tensorflow`."""
    gfile = StandIn(
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
    image = StandIn("tf.image", encode_png=_encoder("png"), encode_jpeg=_encoder("jpeg"))
    compat = StandIn("tf.compat", as_text=_as_text, as_bytes=_as_bytes)
    return StandIn("tf", executing_eagerly=lambda: True, io=StandIn("tf.io", gfile=gfile), image=image, compat=compat)


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
