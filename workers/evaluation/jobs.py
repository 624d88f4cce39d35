"""The jobs of an evaluation: independent unrolls with a name each, listed in two stages.

First every optimizer at every setting on every task; then, from the results of these, what depends on them: the grid
twice as fine, and more initialisations at the best rate of each task. A name identifies the result: two jobs of the
same name have the same result.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from common.config import Config
from workers.evaluation.results import UnrollResult
from workers.evaluation.tuning import FINE, LossTable, grid_rates, rates_between

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
    bound: float | None = None  # stop as soon as the mean loss cannot end below it

    @property
    def name(self) -> str:
        setting = f"{self.rate:.6g}" if self.theta is None else sha256(self.theta)[:16]
        bounded = "" if self.bound is None else "-bounded"
        return f"{self.outer_split}-{self.task}-{self.initialisation}-{self.optimizer}-{setting}{bounded}"

    def to_json(self) -> Json:
        return {"item": self.name, "kind": "unroll", **self._asdict()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{key: record[key] for key in cls._fields})


class TimingJob(NamedTuple):
    """The timing protocol (`workers.evaluation.timing`) on several optimizers."""

    theta: str  # of the learned optimizer, as in `UnrollJob`
    baselines: tuple[str, ...]
    adam8: str | None = None  # theta of Adam with all eight hyper-parameters; None: not timed

    @property
    def name(self) -> str:
        return f"timing-{sha256(self.theta)[:16]}"

    def to_json(self) -> Json:
        record = {"item": self.name, "kind": "timing", "theta": self.theta, "baselines": list(self.baselines)}
        return record if self.adam8 is None else {**record, "adam8": self.adam8}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return cls(record["theta"], tuple(record["baselines"]), record.get("adam8"))


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
    return sha256(encode(theta))


def tasks_of(config: Config) -> range:
    return range(config.evaluation.seed, config.evaluation.seed + config.evaluation.tasks)


def learned_jobs(config: Config, theta: np.ndarray, version: int | None = None) -> list[UnrollJob]:
    """The learned optimizer theta [P] on every task of the evaluation."""
    text = encode(theta)
    return [UnrollJob("learned", task, theta=text, version=version) for task in tasks_of(config)]


def baseline_jobs(config: Config) -> list[UnrollJob]:
    """Every baseline at every rate of the grid, task by task."""
    rates = grid_rates(config.evaluation)
    names = config.evaluation.baselines
    return [UnrollJob(name, task, rate=rate) for task in tasks_of(config) for name in names for rate in rates]


def first_stage(config: Config, theta: np.ndarray, version: int | None = None) -> list[Job]:
    """The jobs of one task stand together, so that a worker draws each task once; the timing comes last."""
    unrolls = sorted(learned_jobs(config, theta, version) + baseline_jobs(config), key=lambda job: job.task)
    return [*unrolls, TimingJob(encode(theta), tuple(config.evaluation.baselines))]


def second_stage(config: Config, results: Sequence[UnrollResult], theta: np.ndarray) -> list[UnrollJob]:
    """Args: results: those of the first stage."""
    return sorted(fine_jobs(config, results) + band_jobs(config, results, theta), key=lambda job: job.task)


def fine_jobs(config: Config, results: Sequence[UnrollResult]) -> list[UnrollJob]:
    """The rates between those of the grid. One that cannot beat the grid's best of its task is cut short."""
    jobs = []
    for name in (name for name in config.evaluation.baselines if name in FINE):
        bounds = grid_table(config, results, name).best().tolist()
        for task, bound in zip(tasks_of(config), bounds, strict=True):
            rates = rates_between(config.evaluation)
            jobs += [UnrollJob(name, task, rate=rate, bound=bound) for rate in rates]
    return jobs


def band_jobs(config: Config, results: Sequence[UnrollResult], theta: np.ndarray) -> list[UnrollJob]:
    """More initialisations on a few tasks: the learned optimizer, and each baseline at its best rate of the task."""
    text = encode(theta)
    version = next((r.version for r in results if r.theta_sha256 == sha256(text)), None)
    best = {n: grid_table(config, results, n).best_settings() for n in config.evaluation.baselines}
    jobs = []
    for index, task in enumerate(tasks_of(config)[:BAND_TASKS]):
        for start in range(1, config.evaluation.initialisations):
            jobs.append(UnrollJob("learned", task, start, theta=text, version=version))
            jobs += [UnrollJob(name, task, start, rate=settings[index].rate) for name, settings in best.items()]
    return jobs


def grid_table(config: Config, results: Iterable[UnrollResult], name: str) -> LossTable:
    """Losses of a baseline on the grid and on the tasks of the evaluation, from the first initialisation."""
    cells = {(r.rate, r.task): r.mean(config.estimator.objective) for r in results if r.optimizer == name}
    rates = grid_rates(config.evaluation)
    return LossTable.of_rates(rates, np.array([[cells[rate, task] for task in tasks_of(config)] for rate in rates]))
