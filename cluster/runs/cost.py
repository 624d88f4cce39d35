"""What the outer-training of a run has cost, by its history."""

from collections.abc import Sequence
from pathlib import Path

from common.config import Config
from common.update_record import UpdateRecord
from learner.history import read_history


def training_seconds(history: Sequence[UpdateRecord]) -> float:
    """Seconds of all incarnations of the learner, each up to its last recorded update."""
    longest: dict[int, float] = {}
    for record in history:
        longest[record.epoch] = max(longest.get(record.epoch, 0.0), record.seconds)
    return sum(longest.values())


def outer_training_cost(run_dir: Path, config: Config) -> float | None:
    """Core seconds that workers have computed the applied samples; None where there was no outer-training.

    Histories of older versions do not hold them: there, the seconds of outer-training times `workers.count` stand in.
    """
    history = read_history(run_dir)
    if all(record.core_seconds for record in history):
        return sum(record.core_seconds for record in history) or None
    return training_seconds(history) * config.workers.count
