"""The results of an evaluation: typed records of the lines of evaluation/unrolls.jsonl."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np

from common import jsonlines
from common.errors import UserError

FILE = "unrolls.jsonl"
BLOCKS = 200  # of the losses of an unroll
TRAILING = 0.05  # fraction of the steps that a trailing mean covers
Json = dict[str, Any]
T = TypeVar("T")


class BySplit(NamedTuple, Generic[T]):
    """A value for each kind of images of a task's classes."""

    train: T
    valid: T
    test: T

    def of(self, split: str) -> T:
        """The value of "train", "valid" or "test"."""
        value: T = getattr(self, split)
        return value


SPLITS = BySplit._fields


def block_ends(steps: int) -> np.ndarray:
    """The step after which each block of an unroll ends: 200 blocks, or one for each step of a shorter unroll."""
    return np.unique(np.round(np.linspace(0, steps, min(steps, BLOCKS) + 1)).astype(int))[1:]


@dataclass(frozen=True)
class UnrollResult:
    """The learning curves of one optimizer on one task from one initialisation. Losses are in nats, clamped.

    The loss of the objective is known after every step; its curve has the mean over the steps since the point before.
    The other losses are measured at the points only.
    """

    name: str  # of the job
    optimizer: str
    theta_sha256: str | None  # of an optimizer that is not tuned by its rate
    objective: str  # the split whose loss is known after every step
    rate: float | None
    task: int
    initialisation: int
    outer_split: str
    version: int | None  # of a learned theta that comes from a run
    steps: tuple[int, ...]  # [points] inner steps before each point
    curves: BySplit[tuple[float, ...]]  # [points]
    means: BySplit[float]  # over the whole unroll
    final_test_accuracy: float | None
    seconds_per_step: float
    stopped: int | None = None  # the step after which an older version cut it short: its mean could not be the least
    decay: float = 0.0  # of a baseline, as in `tuning.Setting`
    schedule: str = "constant"
    member: str = ""  # the family of tasks, of a run with a mixture
    blocks: tuple[float, ...] = ()  # means of the objective's loss over equal parts of the unroll, see `block_ends`

    @property
    def scored(self) -> bool:
        """Whether it has trailing means: those cut short and those without blocks, of older versions, have none."""
        return self.stopped is None and bool(self.blocks)

    def mean(self, split: str) -> float:
        """The mean loss over the steps."""
        return self.means.of(split)

    def trailing(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps [n], and the mean loss [n] of the objective over the last 5 % of all steps before each; see `scored`."""
        ends = block_ends(self.steps[-1])
        widths, window = np.diff(ends, prepend=0), max(1, round(TRAILING * len(ends)))
        # Sums of each window, not differences of cumulative sums: those lose small losses after large ones.
        sums, steps = (np.convolve(x, np.ones(window), "valid") for x in (widths * np.asarray(self.blocks), widths))
        return ends[window - 1 :], sums / steps

    def final(self, split: str) -> float:
        """The mean loss over the last 5 % of the steps; infinite for an unroll that is not `scored`."""
        if not self.scored:
            return np.inf
        if split == self.objective:
            return float(self.trailing()[1][-1])
        measured = zip(self.steps, self.curves.of(split))
        return float(np.mean([loss for step, loss in measured if step > (1 - TRAILING) * self.steps[-1]]))

    def to_json(self) -> Json:
        """A line of the file."""
        return {
            "item": self.name,
            "theta_sha256": self.theta_sha256,
            "objective": self.objective,
            "optimizer": self.optimizer,
            "rate": self.rate,
            "task": self.task,
            "initialisation": self.initialisation,
            "outer_split": self.outer_split,
            "version": self.version,
            "steps": list(self.steps),
            **{split: list(curve) for split, curve in self.curves._asdict().items()},
            **{f"mean_{split}": mean for split, mean in self.means._asdict().items()},
            "final_test_accuracy": self.final_test_accuracy,
            "seconds_per_step": self.seconds_per_step,
            "stopped": self.stopped,
            **({"decay": self.decay} if self.decay else {}),
            **({"schedule": self.schedule} if self.schedule != "constant" else {}),
            **({"member": self.member} if self.member else {}),
            **({"losses": list(self.blocks)} if self.blocks else {}),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """The result of a line. Raises KeyError or TypeError for one that holds none."""
        return cls(
            name=line["item"],
            optimizer=line["optimizer"],
            theta_sha256=line["theta_sha256"],
            objective=line["objective"],
            rate=line["rate"],
            task=line["task"],
            initialisation=line["initialisation"],
            outer_split=line["outer_split"],
            version=line["version"],
            steps=tuple(line["steps"]),
            curves=BySplit(*(tuple(line[split]) for split in SPLITS)),
            means=BySplit(*(float(line[f"mean_{split}"]) for split in SPLITS)),
            final_test_accuracy=line["final_test_accuracy"],
            seconds_per_step=line["seconds_per_step"],
            stopped=line.get("stopped"),
            decay=line.get("decay", 0.0),
            schedule=line.get("schedule", "constant"),
            member=line.get("member", ""),
            blocks=tuple(line.get("losses", ())),
        )


class TimingResult(NamedTuple):
    """Seconds of one inner step by optimizer: the median over the rounds of the timing protocol, and the quartiles."""

    name: str
    seconds: Mapping[str, float]
    quartiles: Mapping[str, tuple[float, float]]

    def to_json(self) -> Json:
        """A line of the same file; `outer_split` tells it from the lines of unrolls."""
        return {
            "item": self.name,
            "optimizer": "timing",
            "theta_sha256": None,
            "outer_split": "none",
            "version": None,
            "seconds": dict(self.seconds),
            "quartiles": {name: list(pair) for name, pair in self.quartiles.items()},
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        quartiles = {name: (low, high) for name, (low, high) in line["quartiles"].items()}
        return cls(line["item"], line["seconds"], quartiles)


def parse(lines: Iterable[Mapping[str, Any]]) -> list[UnrollResult]:
    """The unrolls among the lines, each with the seconds per step of the timing protocol where there is a timing.

    Seconds that an unroll measured itself depend on what else the machine was doing.
    """
    lines = list(lines)
    timings = [TimingResult.from_json(line) for line in lines if line["optimizer"] == "timing"]
    unrolls = [UnrollResult.from_json(line) for line in lines if line["optimizer"] != "timing"]
    return [replace(u, seconds_per_step=_seconds(u, timings)) for u in unrolls] if timings else unrolls


def is_current(line: Mapping[str, Any]) -> bool:
    """Whether a line of the file counts as the result of its job.

    Unrolls of older versions lack blocks: their curves have means over 4 % of the steps, which are not comparable with
    those over 5 %. They are computed again.
    """
    return line.get("optimizer") == "timing" or bool(line.get("losses"))


def timing_prefix(digest: str) -> str:
    """The beginning of the names of the timings of a theta with this sha256."""
    return f"timing-{digest[:16]}"


def _seconds(unroll: UnrollResult, timings: Sequence[TimingResult]) -> float:
    """Seconds per step: of the first timing that has the optimizer, for a learned theta that of its own.

    Timings of several thetas are brought to the speed of the machine during the first by what they have in common.
    """
    digest = unroll.theta_sha256
    own = [t for t in timings if digest is not None and t.name.startswith(timing_prefix(digest))]
    timing = next((t for t in (*own, *timings) if unroll.optimizer in t.seconds), None)
    if timing is None:
        return unroll.seconds_per_step
    common = [name for name in timing.seconds if name in timings[0].seconds and name != unroll.optimizer]
    pace = [timings[0].seconds[name] / timing.seconds[name] for name in common if timing is not timings[0]]
    return timing.seconds[unroll.optimizer] * (float(np.median(pace)) if pace else 1.0)


def read(folder: Path) -> list[UnrollResult]:
    """All unrolls of a run's evaluations, of each job the last one. Raises UserError for a corrupt file.

    Args:
      folder: `evaluation` of the run directory.
    """
    path = folder / FILE
    try:
        last = {(line["optimizer"], line["theta_sha256"], line["item"]): line for line in jsonlines.read(path)}
        return parse(last.values())
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is corrupt (a line is no result: {type(error).__name__} {error}): delete that line, and evaluate again"
        ) from None
