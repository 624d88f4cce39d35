"""The checkpoints of a run: `checkpoints/e<epoch>-v<version>.ckpt`. The newest intact one of the lineage wins."""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common import checkpoint
from common.errors import UserError
from learner.failpoints import Failpoint
from learner.lineage import Position, contains, lineage

log = logging.getLogger(__name__)
_NAME = re.compile(r"e(\d+)-v(\d+)\.ckpt")
_TEMPORARY = re.compile(r"\.e(\d+)-\w+\.(ckpt|jnl)\.[0-9a-f]+\.tmp")


def path_of(folder: Path, position: Position) -> Path:
    return folder / f"e{position.epoch:04d}-v{position.version:07d}.ckpt"


def positions(folder: Path) -> list[Position]:
    """All checkpoints by their names, oldest first: intact or not, on the lineage or not."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(Position(int(m[1]), int(m[2])) for name in names if (m := _NAME.fullmatch(name)))


def newest(folder: Path, chain: Mapping[int, int]) -> tuple[Position, dict[str, Any]] | None:
    """The newest intact checkpoint of the lineage `chain`. Corrupt ones that are newer are named in the log."""
    for position in reversed(positions(folder)):
        if not contains(chain, position):
            continue
        try:
            return position, checkpoint.load(path_of(folder, position))
        except UserError as error:
            log.warning("%s; falling back to the checkpoint before it", error)
    return None


def save(folder: Path, position: Position, content: dict[str, Any], failpoint: Failpoint) -> int:
    """Returns the bytes written. Raises OSError."""
    return checkpoint.save(path_of(folder, position), content, failpoint)


def retain(folder: Path, chain: Mapping[int, int], epoch: int, keep: int, every: int = 0) -> None:
    """Deletes all but the newest `keep` checkpoints and those of each `every`-th version, never a later epoch's.

    Those of older epochs that are not on the lineage are never read again and go first.
    """
    ours = [p for p in positions(folder) if p.epoch <= epoch]
    valid = [p for p in ours if contains(chain, p)]
    kept = {*valid[-keep:], *(p for p in valid if every and p.version % every == 0)}
    for position in ours:
        if position not in kept:
            path_of(folder, position).unlink(missing_ok=True)


def clean(folder: Path, epoch: int) -> None:
    """Removes temporary files of checkpoints and of the journal that were left by earlier epochs."""
    for name in os.listdir(folder):
        match = _TEMPORARY.fullmatch(name)
        if match and int(match[1]) < epoch:
            (folder / name).unlink(missing_ok=True)


def latest_checkpoint(run: Path) -> Path:
    """The newest intact checkpoint of the run in folder `run`. Raises UserError when there is none."""
    found = newest(run / "checkpoints", lineage(run / "epochs"))
    if found is None:
        raise UserError(f"{run} holds no usable checkpoint: train it first, or name another run")
    return path_of(run / "checkpoints", found[0])


def load_theta(path: Path) -> np.ndarray:
    """Theta [P] float32 of a checkpoint. Raises UserError when it cannot be read, CorruptRecord when it holds none."""
    return theta_in(checkpoint.load(path), str(path))


def theta_in(record: Any, name: str) -> np.ndarray:
    """Theta [P] float32 of the record of a checkpoint. Raises CorruptRecord, which calls it `name`."""
    theta = record.get("theta") if isinstance(record, dict) else None
    if not isinstance(theta, np.ndarray) or theta.dtype != np.float32 or theta.ndim != 1:
        raise checkpoint.CorruptRecord(f"{name} holds no parameters of an optimizer: restore a checkpoint from a copy")
    return theta


def versions(run: Path) -> Iterable[tuple[int, Path]]:
    """(version, path) of the checkpoints of the lineage that have been kept, oldest first."""
    folder, chain = run / "checkpoints", lineage(run / "epochs")
    found = {p.version: path_of(folder, p) for p in positions(folder) if contains(chain, p)}
    return sorted(found.items())
