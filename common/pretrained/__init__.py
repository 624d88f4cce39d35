"""Theta files: learned optimizers outside of run directories, and the ones that are included in the package.

An included one is `NAME.theta` in this directory. `NAME.md` is its card: how it was trained, on what, how it compares.
Read are also safetensors files, folders of a model hub that hold one, and thetas that flax has serialized.
"""

import os
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import numpy as np

from common import checkpoint, configfile
from common.checkpoint import CorruptRecord
from common.pretrained import flax_file, safetensors_file
from common.pretrained.learned import Pretrained as Pretrained
from common.pretrained.learned import checked

SUFFIX = ".theta"


def names() -> list[str]:
    """The names of the included optimizers."""
    return sorted(p.name.removesuffix(SUFFIX) for p in _folder().iterdir() if p.name.endswith(SUFFIX))


def find(source: str) -> Path | None:
    """The theta file of an included name, or else at a path or in a folder; None if there is none."""
    path = _folder() / f"{source}{SUFFIX}" if source in names() else Path(source)
    inside = path / safetensors_file.FILE
    return path if os.path.isfile(path) else inside if os.path.isfile(inside) else None


def title(path: Path) -> str:
    """A name for a theta file: that of its folder where the file's own is the same for all."""
    return path.absolute().parent.name if path.name == safetensors_file.FILE else path.stem


def _folder() -> Path:
    return Path(str(resources.files(__name__)))


def save(path: Path, pretrained: Pretrained) -> None:
    """Writes a theta file atomically. Raises OSError."""
    theta, optimizer, origin = pretrained
    record = {"kind": "theta", "theta": np.asarray(theta, "<f4"), "optimizer": asdict(optimizer), "origin": origin}
    checkpoint.save(path, record)


def load(path: Path) -> Pretrained:
    """Returns theta of a file that `save`, `safetensors_file.save` or flax wrote.

    Raises:
      UserError: it is another kind of file, or theta does not fit its optimizer or is not finite.
    """
    if path.suffix == safetensors_file.SUFFIX:
        return safetensors_file.load(path)
    if path.suffix != SUFFIX and flax_file.is_flax(_head(path)):
        return flax_file.load(path)
    record = checkpoint.load(path)
    fields = record if isinstance(record, dict) and record.get("kind") == "theta" else {}
    theta, origin = fields.get("theta"), fields.get("origin")
    if not isinstance(theta, np.ndarray) or theta.dtype != np.float32 or theta.ndim != 1 or not isinstance(origin, str):
        raise CorruptRecord(f"{path} is not a theta file: write one with outertrain export RUN -o FILE")
    optimizer = configfile.from_dict({"optimizer": fields.get("optimizer")}).optimizer
    return checked(Pretrained(theta, optimizer, origin), path)


def _head(path: Path) -> bytes:
    """The first byte of a file; nothing where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1)
    except OSError:
        return b""
