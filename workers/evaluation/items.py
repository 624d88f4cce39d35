"""What an evaluation consists of: named items, each one unroll, in two stages.

First every optimizer at every setting on every task; then, from the rows of these, what can be asked only now: the
grid twice as fine, and more initialisations at the best rate of each task. A name is idempotent: the same name, the
same result.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.config import Config
from workers.evaluation import baselines
from workers.evaluation.scores import best_rates, losses

Record = dict[str, Any]  # an item or a row, for JSON; "item" is its name
BAND_TASKS = 4  # whose curves get a percentile band


class Item(NamedTuple):
    """One unroll to be made."""

    optimizer: str  # "learned", or a baseline
    task: int  # the seed of the task
    initialisation: int = 0
    rate: float | None = None  # of a baseline that is tuned by its rate
    theta: str | None = None  # base64 of float32, little endian, of every other optimizer
    version: int | None = None  # of the learned theta
    outer_split: str = "outer_test"
    bound: float | None = None  # stop as soon as the mean loss cannot end below it

    @property
    def name(self) -> str:
        setting = f"{self.rate:.6g}" if self.theta is None else sha256(self.theta)[:16]
        bounded = "" if self.bound is None else "-bounded"
        return f"{self.outer_split}-{self.task}-{self.initialisation}-{self.optimizer}-{setting}{bounded}"

    def record(self) -> Record:
        return {"item": self.name, "kind": "unroll", **self._asdict()}


def from_record(record: Mapping[str, Any]) -> Item:
    return Item(**{key: record[key] for key in Item._fields})


def encode(theta: np.ndarray) -> str:
    return b64encode(np.asarray(theta, "<f4").tobytes()).decode()


def decode(theta: str) -> np.ndarray:
    return np.frombuffer(b64decode(theta), "<f4").astype(np.float32)


def sha256(theta: str) -> str:
    """Hex digest of the bytes of an encoded theta."""
    return hashlib.sha256(b64decode(theta)).hexdigest()


def tasks_of(config: Config) -> range:
    return range(config.evaluation.seed, config.evaluation.seed + config.evaluation.tasks)


def learned_items(
    config: Config,
    theta: np.ndarray,
    version: int | None = None,
    outer_split: str = "outer_test",
    tasks: Sequence[int] | None = None,
) -> list[Record]:
    """The learned optimizer theta [P] on every task of the evaluation, or on those named."""
    text, chosen = encode(theta), tasks_of(config) if tasks is None else tasks
    return [Item("learned", task, 0, None, text, version, outer_split).record() for task in chosen]


def baseline_items(config: Config, names: Iterable[str] | None = None) -> list[Record]:
    """Every baseline (by default those of the config) at every rate of the grid, task by task."""
    chosen = config.evaluation.baselines if names is None else tuple(names)
    grid = baselines.rates(config.evaluation)
    return [Item(name, task, 0, rate).record() for task in tasks_of(config) for name in chosen for rate in grid]


def evaluation_items(config: Config, theta: np.ndarray, version: int | None = None) -> list[Record]:
    """The first stage, in an order in which a worker draws each task once; the timing at the end."""
    unrolls = sorted(learned_items(config, theta, version) + baseline_items(config), key=lambda item: item["task"])
    return [*unrolls, timing_item(config, theta)]


def timing_item(config: Config, theta: np.ndarray) -> Record:
    text = encode(theta)
    names = list(config.evaluation.baselines)
    return {"item": f"timing-{sha256(text)[:16]}", "kind": "timing", "theta": text, "baselines": names}


def second_items(config: Config, rows: Sequence[Mapping[str, Any]], theta: np.ndarray) -> list[Record]:
    """The second stage, from the rows of the first."""
    items = fine_items(config, rows) + band_items(config, rows, theta)
    return sorted(items, key=lambda item: item["task"])


def fine_items(config: Config, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The rates between those of the grid. One that cannot beat the grid's best of its task is cut short."""
    items = []
    for name in (name for name in config.evaluation.baselines if name in baselines.FINE):
        table = losses(rows, name, config.estimator.objective)
        for task in tasks_of(config):
            bound = min(loss for (_, t), loss in table.items() if t == task)
            for rate in baselines.rates_between(config.evaluation):
                items.append(Item(name, task, 0, rate, bound=bound).record())
    return items


def band_items(config: Config, rows: Sequence[Mapping[str, Any]], theta: np.ndarray) -> list[Record]:
    """More initialisations on a few tasks: the learned optimizer, and each baseline at its best rate of that task."""
    items, text = [], encode(theta)
    version = next((row["version"] for row in rows if row.get("theta_sha256") == sha256(text)), None)
    rates = {n: best_rates(rows, n, config.estimator.objective) for n in config.evaluation.baselines}
    for task in tasks_of(config)[:BAND_TASKS]:
        for start in range(1, config.evaluation.initialisations):
            items.append(Item("learned", task, start, None, text, version).record())
            items += [Item(name, task, start, best[task]).record() for name, best in rates.items()]
    return items
