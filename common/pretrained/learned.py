"""A learned optimizer outside of a run, and the checks that theta must pass to be one."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.checkpoint import CorruptRecord
from common.config import OptimizerConfig
from common.errors import UserError


class Pretrained(NamedTuple):
    """A learned optimizer."""

    theta: np.ndarray  # [P] float32
    optimizer: OptimizerConfig  # the family that theta parametrizes
    origin: str  # a few words on where it comes from


def checked(learned: Pretrained, path: Path) -> Pretrained:
    """The argument, read from `path`. Raises CorruptRecord where theta does not fit its optimizer or is not finite."""
    from common.optimizer import make_family  # loads JAX

    size = make_family(learned.optimizer).size
    if len(learned.theta) != size:
        raise CorruptRecord(f"{path} has {len(learned.theta)} numbers, and its optimizer needs {size}: export it again")
    if not np.isfinite(learned.theta).all():
        raise CorruptRecord(f"{path} holds numbers that are not finite: export another version with --version N")
    return learned


def content(path: Path, most: int) -> bytes:
    """The bytes of a file. Raises UserError where it cannot be read or has more than `most`."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check the path and its permissions") from None
    if len(data) > most:
        raise CorruptRecord(f"{path} has more than {most // 2**20} MiB, and no theta is that large: name another file")
    return data
