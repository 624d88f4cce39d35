"""What every figure consists of: named jobs that any worker can compute, their results, and an outcome with a sentence.

A figure's module has

    CLAIM                     the paper's claim, one sentence
    NEEDS                     the figures whose results it uses
    KINDS                     its kinds of jobs, each with its result
    jobs(scale, results)      the jobs known so far, given the results so far; when all of them have results and asking
                              again names no new one, the figure is complete
    perform(job, train)       the result of one job
    outcome(results)          whether the claim holds
    FROM_PARTS                true: it has an outcome while some jobs have no result (default: it has not)

and its picture is drawn by the module of the same name in `workers.figures.pictures`.

The name of a job ends in a digest of everything that decides its result, so a changed setting is another job.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from common import configfile, jsonlines
from common.config import Config, stable_tree
from common.update_record import UpdateRecord
from workers.evaluation.comparison import LEARNED
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import UnrollJob

Json = dict[str, Any]
Settings = tuple[str, ...]  # a preset, then overrides "section.key=value"
GUESSING = 0.95  # of the loss of guessing: nothing has been learned above it


class Outcome(NamedTuple):
    """What the results say about a claim."""

    holds: bool | None  # None: undecided
    sentence: str  # with the numbers and their uncertainty


class Trained(NamedTuple):
    """A finished outer-training."""

    theta: np.ndarray  # [P] float32
    kept: Mapping[int, np.ndarray]  # theta at the versions that were asked for
    history: Sequence[UpdateRecord]
    reached: Mapping[int, np.ndarray] = {}  # theta when so many inner steps were reached, for those asked for


class Train(Protocol):
    """Trains one run from start to end."""

    def __call__(
        self, config: Config, keep: Sequence[int], *, at_steps: Sequence[int] = (), stale: bool = False
    ) -> Trained:
        """Args:
        keep: versions whose theta is returned.
        at_steps: numbers of inner steps; theta of the first version that has so many is returned too, or the last one
          where the run ends before.
        stale: workers compute with the parameters of their own last replies, as on a cluster, instead of the newest.
        """
        ...


def key(name: str) -> Any:
    """A field that has another key in JSON."""
    return field(metadata={"key": name})


def input_only(*, deciding: bool = True) -> Any:
    """A text that a job has and its result does not repeat: a long input, or a place on one machine.

    Args:
      deciding: it is part of the name's digest.
    """
    return field(default=None, metadata={"input_only": True, "deciding": deciding})


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of a figure. Its result is a subclass that adds fields; both are JSON objects on disk and on the wire."""

    figure: ClassVar[str] = ""
    kind: ClassVar[str] = ""

    label: str
    settings: Settings = ()  # of the configuration that it runs under
    name: str = ""

    def __init_subclass__(cls, figure: str = "", kind: str = "") -> None:
        super().__init_subclass__()
        cls.figure, cls.kind = figure or cls.figure, kind or cls.kind

    def named(self) -> Self:
        """The job with its name."""
        config = deciding(config_of(self.settings)) if self.settings else {}
        own = {_key(f): getattr(self, f.name) for f in self._own_fields() if f.metadata.get("deciding", True)}
        decided = json.dumps([self.figure, self.kind, config, own], sort_keys=True)
        digest = hashlib.sha256(decided.encode()).hexdigest()[:10]
        return replace(self, name=f"{self.figure}-{self.label}-{digest}")

    def to_json(self) -> Json:
        described = {"item": self.name, "figure": self.figure, "kind": self.kind, "label": self.label}
        own = {_key(f): getattr(self, f.name) for f in self._own_fields()}
        known = {name: value for name, value in own.items() if value is not None}
        return {**described, "settings": list(self.settings), **known}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Raises KeyError for a record that lacks a field."""
        own = {f.name: record[_key(f)] for f in cls._own_fields() if _key(f) in record or f.default is MISSING}
        settings = tuple(record.get("settings", ()))
        return cls(name=record["item"], label=record.get("label", ""), settings=settings, **own)

    @classmethod
    def of(cls, job: "Job", **results: Any) -> Self:
        """The result of a job, with these results."""
        kept = {f.name: getattr(job, f.name) for f in fields(job) if not f.metadata.get("input_only", False)}
        return cls(**kept, **results)

    @classmethod
    def _own_fields(cls) -> list[Field[Any]]:
        return [f for f in fields(cls) if f.name not in ("label", "settings", "name")]


def _key(own: Field[Any]) -> str:
    name: str = own.metadata.get("key", own.name)
    return name


class Kind(NamedTuple):
    """A kind of job of a figure, and its result."""

    job: type[Job]
    result: type[Job]


Results = Sequence[Job]
R = TypeVar("R", bound=Job)


def of_kind(results: Iterable[Job], kind: type[R]) -> list[R]:
    """The results of one kind."""
    return [result for result in results if type(result) is kind]


def deciding(config: Config) -> Json:
    """The configuration without the keys that cannot change results: storage, monitoring, the location of the data."""
    tree = stable_tree(config)
    workers = {name: value for name, value in tree["workers"].items() if name != "grace"}
    outer = {name: value for name, value in tree["outer"].items() if not name.startswith("keep_") and name != "journal"}
    return {**tree, "dataset": {**tree["dataset"], "path": ""}, "outer": outer, "workers": workers, "metrics": None}


@lru_cache(maxsize=64)
def config_of(settings: Settings) -> Config:
    return configfile.load(settings[0], settings[1:])


@lru_cache(maxsize=4)
def evaluator_of(settings: Settings) -> Evaluator:
    """One per configuration and process, so that its unrolls are compiled once."""
    return Evaluator(config_of(settings))


def learned_losses(
    evaluator: Evaluator, theta: str, tasks: Iterable[int], loss: str = "train", outer_split: str = "outer_train"
) -> list[float]:
    """[tasks] mean loss over the steps of a learned theta."""
    runs = (UnrollJob(LEARNED, task, theta=theta, outer_split=outer_split) for task in tasks)
    return [evaluator.run(run).mean(loss) for run in runs]


def rounded(values: Any, digits: int = 5) -> Any:
    """A number, or nested lists of them, with so many significant digits, to keep files small; infinity as text."""
    if isinstance(values, dict):
        return {name: rounded(value, digits) for name, value in values.items()}
    if isinstance(values, list | tuple | np.ndarray):
        return [rounded(value, digits) for value in values]
    return jsonlines.writable(float(f"{float(values):.{digits}g}"))
