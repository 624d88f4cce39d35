"""The best version of a run: which of those that were evaluated during training has the least mean loss.

With a mixture that is the geometric mean over its families, by their weights, of the mean loss on each: no family outweighs
another by the size of its losses.
"""

import json
from typing import Any, NamedTuple

from cluster.runs.directory import RunDirectory
from common import files
from common.errors import UserError
from learner import lineage

BEST = "best"  # as a version, of `export`
CHOOSING = "outer_train"  # the classes of the tasks that choose; those of the comparison with baselines are others


class Best(NamedTuple):
    """The best of the evaluated versions."""

    version: int
    epoch: int
    loss: float  # mean over the tasks and the steps; of a mixture the geometric mean over its families
    objective: str  # "train" or "valid"
    tasks: int
    evaluated: int  # versions that were compared
    outer_split: str = "outer_test"  # of the tasks; files of older versions do not say it
    families: int = 1  # of tasks, each with so many `tasks`

    def to_json(self) -> dict[str, Any]:
        return self._asdict()

    def sentence(self) -> str:
        where = "tasks of outer-train classes" if self.outer_split == CHOOSING else "of the comparison's own tasks"
        mean = f"geometric mean over {self.families} families of the" if self.families > 1 else "mean"
        return (
            f"version {self.version}, {mean} {self.objective} loss {self.loss:.4g} on {self.tasks} {where}, "
            f"of {self.evaluated} evaluated versions"
        )


def write(run: RunDirectory, best: Best) -> None:
    files.replace(run.best_file, json.dumps(best.to_json()) + "\n")


def read(run: RunDirectory) -> Best | None:
    """The best version so far; None while no version has been evaluated. Raises UserError for a corrupt file."""
    try:
        return _checked(Best(**json.loads(run.best_file.read_text())))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{run.best_file} is corrupt ({error}): delete it; the next evaluation writes it again"
        ) from None


def _checked(best: Best) -> Best:
    """The record with a loss that is a float. Raises TypeError, or OverflowError, for a field of another type."""
    best = best._replace(loss=float(best.loss) if type(best.loss) is int else best.loss)
    for name, kind in Best.__annotations__.items():
        if type(value := getattr(best, name)) is not kind:
            raise TypeError(f"{name} is {value!r:.40}, not {kind.__name__}")
    return best


def version_of(run: RunDirectory) -> int:
    """The best version. Raises UserError when none has been evaluated, or the run has been resumed from before it."""
    best = read(run)
    if best is None:
        raise UserError(
            f"the run {run.name!r} has no best version: set evaluation.every, so that versions are evaluated during training"
        )
    if not lineage.contains(lineage.lineage(run.epochs), lineage.Position(best.epoch, best.version)):
        raise UserError(
            f"the best version of the run {run.name!r}, {best.version}, is no longer part of it: the run was resumed from an earlier "
            "checkpoint. Resume it until the next evaluation, or name a version"
        )
    return best.version
