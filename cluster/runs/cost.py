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
    """Core seconds: the seconds of outer-training times `workers.count`; None where there was none."""
    history = read_history(run_dir)
    return training_seconds(history) * config.workers.count if history else None
