"""The checkpoints of a run: `checkpoints/e<epoch>-v<version>.ckpt`, the newest whole one of the lineage wins."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from common import checkpoint
from common.errors import UserError
from learner import record
from learner.failpoints import Reached
from learner.lineage import Position, counts, lineage

log = logging.getLogger(__name__)
_NAME = re.compile(r"e(\d+)-v(\d+)\.ckpt")
_LEFT_OVER = re.compile(r"\.e(\d+)-v\d+\.ckpt\.\d+\.tmp")


def path_of(folder: Path, position: Position) -> Path:
    return folder / f"e{position.epoch:04d}-v{position.version:07d}.ckpt"


def positions(folder: Path) -> list[Position]:
    """All checkpoints by their names, oldest first, whole or not, of the lineage or not."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(Position(int(m[1]), int(m[2])) for name in names if (m := _NAME.fullmatch(name)))


def newest(folder: Path, chain: dict[int, int]) -> tuple[Position, dict[str, Any]] | None:
    """The newest whole checkpoint of the lineage; each damaged one before it is named in the log."""
    for position in reversed(positions(folder)):
        if not counts(chain, position):
            continue
        try:
            return position, checkpoint.load(path_of(folder, position))
        except UserError as error:
            log.warning("%s; the checkpoint before it is used instead", error)
    return None


def save(folder: Path, position: Position, content: dict[str, Any], reached: Reached) -> int:
    """Returns the bytes written. Raises OSError."""
    return checkpoint.save(path_of(folder, position), content, reached)


def retain(folder: Path, chain: dict[int, int], epoch: int, keep: int, every: int = 0) -> None:
    """Deletes all but the newest `keep` checkpoints and those of each `every`-th version, never a later epoch's.

    Older epochs' checkpoints past the lineage are never read again and go first.
    """
    ours = [p for p in positions(folder) if p.epoch <= epoch]
    living = [p for p in ours if counts(chain, p)]
    kept = {*living[-keep:], *(p for p in living if every and p.version % every == 0)}
    for position in ours:
        if position not in kept:
            path_of(folder, position).unlink(missing_ok=True)


def clean(folder: Path, epoch: int) -> None:
    """Removes what an earlier life left half written."""
    for name in os.listdir(folder):
        match = _LEFT_OVER.fullmatch(name)
        if match and int(match[1]) < epoch:
            (folder / name).unlink(missing_ok=True)


def latest_checkpoint(run: Path) -> Path:
    """The newest whole checkpoint of the run in folder `run`. Raises UserError when there is none."""
    found = newest(run / "checkpoints", lineage(run / "epochs"))
    if found is None:
        raise UserError(f"{run} holds no usable checkpoint: train it first, or name another run")
    return path_of(run / "checkpoints", found[0])


def load_theta(path: Path) -> np.ndarray:
    """Theta [P] float32 of a checkpoint. Raises UserError, Damaged."""
    return record.theta_in(checkpoint.load(path), str(path))


def versions(run: Path) -> Iterable[tuple[int, Path]]:
    """(version, path) of the lineage's checkpoints that are still there, oldest first."""
    folder, chain = run / "checkpoints", lineage(run / "epochs")
    found = {p.version: path_of(folder, p) for p in positions(folder) if counts(chain, p)}
    return sorted(found.items())
