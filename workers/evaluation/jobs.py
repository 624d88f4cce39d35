"""The jobs of an evaluation: independent unrolls with a name each, listed in two stages.

First every optimizer at every setting that is not rejected on every task; then, from the results of these, more
initialisations at the best settings of each task. A name identifies the result: two jobs of the same name have the same
result.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from common.config import Config
from common.messages import theta_sha256
from workers.evaluation.results import UnrollResult, timing_prefix
from workers.evaluation.tuning import CONSTANT, LossTable, Setting, all_settings, grid, rungs, survivors

Json = dict[str, Any]
BAND_TASKS = 4  # tasks whose curves get a percentile band over initialisations


class UnrollJob(NamedTuple):
    """One optimizer on one task from one initialisation."""

    optimizer: str  # "learned", or a baseline
    task: int  # the seed of the task
    initialisation: int = 0
    rate: float | None = None  # of a baseline that is tuned by its learning rate
    theta: str | None = None  # of every other optimizer: base64 of float32, little-endian
    version: int | None = None  # of a learned theta that comes from a run
    outer_split: str = "outer_test"
    decay: float = 0.0  # of a baseline, as in `Setting`
    schedule: str = CONSTANT
    family: str | None = None  # [optimizer] of theta as JSON, where it is another one than the configuration's

    @property
    def setting(self) -> Setting:
        return Setting(self.rate, None, self.decay, self.schedule)

    @property
    def name(self) -> str:
        setting = f"{self.rate:.6g}" if self.theta is None else sha256(self.theta)[:16]
        setting += f"-{_short(self.decay)}" if self.decay else ""
        setting += f"-{self.schedule}" if self.schedule != CONSTANT else ""
        setting += f"-{hashlib.sha256(self.family.encode()).hexdigest()[:8]}" if self.family is not None else ""
        return f"{self.outer_split}-{self.task}-{self.initialisation}-{self.optimizer}-{setting}"

    def to_json(self) -> Json:
        return {"item": self.name, "kind": "unroll", **self._asdict()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{key: record[key] for key in cls._fields if key in record})


def _short(value: float) -> str:
    """A number in six digits, or in all that it takes to tell it from others."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


class TimingJob(NamedTuple):
    """The timing protocol (`workers.evaluation.timing`) on several optimizers."""

    theta: str  # of the learned optimizer, as in `UnrollJob`
    baselines: tuple[str, ...]
    searched: tuple[tuple[str, str], ...] = ()  # optimizers with all their hyper-parameters, and their thetas
    family: str | None = None  # as in `UnrollJob`

    @property
    def name(self) -> str:
        timed = repr((self.baselines, self.searched or None, self.family))
        return f"{timing_prefix(sha256(self.theta))}-{hashlib.sha256(timed.encode()).hexdigest()[:8]}"

    def to_json(self) -> Json:
        record = {"item": self.name, "kind": "timing", "theta": self.theta, "baselines": list(self.baselines)}
        later = {"searched": dict(self.searched) or None, "family": self.family}
        return record | {key: value for key, value in later.items() if value is not None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return cls(
            record["theta"], tuple(record["baselines"]), tuple(record.get("searched", {}).items()), record.get("family")
        )


Job = UnrollJob | TimingJob


def encode(theta: np.ndarray) -> str:
    return b64encode(np.asarray(theta, "<f4").tobytes()).decode()


def decode(theta: str) -> np.ndarray:
    return np.frombuffer(b64decode(theta), "<f4").astype(np.float32)


def sha256(theta: str) -> str:
    """Hex digest of the bytes of an encoded theta."""
    return hashlib.sha256(b64decode(theta)).hexdigest()


def digest_of(theta: np.ndarray) -> str:
    """Hex digest of theta [P]: the `theta_sha256` of its results."""
    return theta_sha256(theta)


def tasks_of(config: Config) -> range:
    return range(config.evaluation.seed, config.evaluation.seed + config.evaluation.tasks)


class Learned(NamedTuple):
    """A learned optimizer that is evaluated."""

    theta: np.ndarray  # [P] float32
    version: int | None = None  # None: not from a run
    family: str | None = None  # as in `UnrollJob`

    @property
    def text(self) -> str:
        return encode(self.theta)


def learned_jobs(config: Config, subject: Learned) -> list[UnrollJob]:
    """The learned optimizer on every task of the evaluation."""
    return [_learned(subject, task) for task in tasks_of(config)]


def choosing_jobs(config: Config, subject: Learned) -> list[UnrollJob]:
    """The learned optimizer on the tasks by which the best version of a run is chosen.

    They are of outer-train classes: a version that was chosen on the tasks of the evaluation would have had as many
    trials there as there are versions.
    """
    return [job._replace(outer_split="outer_train") for job in learned_jobs(config, subject)]


def _learned(subject: Learned, task: int, start: int = 0) -> UnrollJob:
    return UnrollJob("learned", task, start, theta=subject.text, version=subject.version, family=subject.family)


def _baseline(name: str, task: int, setting: Setting, start: int = 0) -> UnrollJob:
    return UnrollJob(name, task, start, rate=setting.rate, decay=setting.decay, schedule=setting.schedule)


def baseline_jobs(config: Config, results: Sequence[UnrollResult] = ()) -> list[UnrollJob]:
    """The jobs of all baselines known so far, task by task; complete when results add no more."""
    listed = [job for name in config.evaluation.optimizers for job in _rung_jobs(config, name, results)]
    return sorted(listed, key=lambda job: job.task)


def _rung_jobs(config: Config, name: str, results: Sequence[UnrollResult]) -> list[UnrollJob]:
    """A baseline at every setting that is not rejected, rung by rung. Rejection looks at the objective's loss only."""
    settings, tasks, begin, listed = all_settings(config.evaluation, name), tasks_of(config), 0, []
    objective, steps = config.estimator.objective, rungs(config.evaluation, name)
    found = _by_setting(results, name)
    for rung in steps:
        listed += [_baseline(name, task, setting) for task in tasks[begin : rung.tasks] for setting in settings]
        so_far = tasks[: rung.tasks]
        if rung is steps[-1] or any((setting, task) not in found for setting in settings for task in so_far):
            break
        rows = [[found[setting, task] for task in so_far] for setting in settings]
        means = LossTable(tuple(settings), np.array([[result.mean(objective) for result in row] for row in rows]))
        finals = LossTable(tuple(settings), np.array([[result.final(objective) for result in row] for row in rows]))
        alive = survivors((means, finals), rung.keep)
        settings, begin = [setting for setting in settings if setting in alive], rung.tasks
    return listed


def first_stage(config: Config, subjects: Sequence[Learned], results: Sequence[UnrollResult] = ()) -> list[Job]:
    """The jobs of one task stand together, so that a worker draws each task once; the timing comes last."""
    own = [job for subject in subjects for job in learned_jobs(config, subject)]
    unrolls = sorted(own + baseline_jobs(config, results), key=lambda job: job.task)
    names = config.evaluation.optimizers
    return [*unrolls, *(TimingJob(subject.text, names, family=subject.family) for subject in subjects)]


def second_stage(config: Config, results: Sequence[UnrollResult], subjects: Sequence[Learned]) -> list[UnrollJob]:
    """More initialisations on a few tasks: the learned optimizers, and each baseline at its best settings of the task.

    These are the best one of the grid by the mean loss, for the curves, and the best one of all by the final loss, which
    stands for the baseline in the scores.

    Args:
      results: those of the first stage.
    """
    grids, objective, jobs = config.evaluation, config.estimator.objective, []
    best = {
        name: [
            _best_settings(config, results, name, grid(grids, name), lambda r: r.mean(objective)),
            _best_settings(config, results, name, all_settings(grids, name), lambda r: r.final(objective)),
        ]
        for name in grids.optimizers
    }
    for index, task in enumerate(tasks_of(config)[:BAND_TASKS]):
        for start in range(1, grids.initialisations):
            jobs += [_learned(subject, task, start) for subject in subjects]
            for name, both in best.items():
                chosen = dict.fromkeys(settings[index] for settings in both)
                jobs += [_baseline(name, task, setting, start) for setting in chosen]
    return jobs


def _by_setting(results: Iterable[UnrollResult], name: str) -> dict[tuple[Setting, int], UnrollResult]:
    """The results of a baseline from the first initialisation by setting and task."""
    own = (r for r in results if r.optimizer == name and r.initialisation == 0)
    return {(Setting(r.rate, None, r.decay, r.schedule), r.task): r for r in own}


def _best_settings(
    config: Config,
    results: Iterable[UnrollResult],
    name: str,
    settings: Sequence[Setting],
    loss: Callable[[UnrollResult], float],
) -> tuple[Setting, ...]:
    """[tasks] of the evaluation: the best one of those settings of a baseline that have run on all of them."""
    cells, tasks = _by_setting(results, name), tasks_of(config)
    complete = tuple(s for s in settings if all((s, task) in cells for task in tasks))
    return LossTable(complete, np.array([[loss(cells[s, task]) for task in tasks] for s in complete])).best_settings()
