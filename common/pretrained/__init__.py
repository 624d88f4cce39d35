"""Theta files: learned optimizers outside of run directories, and the ones that are included in the package.

An included one is `NAME.theta` in this directory. `NAME.md` is its card: how it was trained, on what, how it compares.
"""

from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import checkpoint, configfile
from common.checkpoint import CorruptRecord
from common.config import OptimizerConfig

SUFFIX = ".theta"


class Pretrained(NamedTuple):
    """A learned optimizer."""

    theta: np.ndarray  # [P] float32
    optimizer: OptimizerConfig  # the family that theta parametrizes
    origin: str  # a few words on where it comes from


def names() -> list[str]:
    """The names of the included optimizers."""
    return sorted(p.name.removesuffix(SUFFIX) for p in _folder().iterdir() if p.name.endswith(SUFFIX))


def find(source: str) -> Path | None:
    """The theta file of an included name, or else at a path; None if there is neither."""
    path = _folder() / f"{source}{SUFFIX}" if source in names() else Path(source)
    return path if path.is_file() else None


def _folder() -> Path:
    return Path(str(resources.files(__name__)))


def save(path: Path, pretrained: Pretrained) -> None:
    """Writes a theta file atomically. Raises OSError."""
    theta, optimizer, origin = pretrained
    record = {"kind": "theta", "theta": np.asarray(theta, "<f4"), "optimizer": asdict(optimizer), "origin": origin}
    checkpoint.save(path, record)


def load(path: Path) -> Pretrained:
    """Returns the content of a file that `save` wrote.

    Raises:
      UserError: it is another kind of file, or theta does not fit its optimizer or is not finite.
    """
    record = checkpoint.load(path)
    fields = record if isinstance(record, dict) and record.get("kind") == "theta" else {}
    theta, origin = fields.get("theta"), fields.get("origin")
    if not isinstance(theta, np.ndarray) or theta.dtype != np.float32 or theta.ndim != 1 or not isinstance(origin, str):
        raise CorruptRecord(f"{path} is not a theta file: write one with outertrain export RUN -o FILE")
    optimizer = configfile.from_dict({"optimizer": fields.get("optimizer")}).optimizer
    _check_theta(theta, optimizer, path)
    return Pretrained(theta, optimizer, origin)


def _check_theta(theta: np.ndarray, optimizer: OptimizerConfig, path: Path) -> None:
    from common.optimizer import make_family  # loads JAX

    size = make_family(optimizer).size
    if len(theta) != size:
        raise CorruptRecord(f"{path} has {len(theta)} numbers, and its optimizer needs {size}: export it again")
    if not np.isfinite(theta).all():
        raise CorruptRecord(f"{path} holds numbers that are not finite: export another version with --version N")
