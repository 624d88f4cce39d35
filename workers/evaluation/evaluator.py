"""Evaluation: learning curves of frozen optimizers on tasks they have never seen.

What an item runs on follows from its task's number and its initialisation alone, so every optimizer sees the same
classes, the same w and the same batches; and the unroll is the one that outer-training uses.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config
from common.data.dataset import open_dataset
from common.optimizer import make_family
from common.task import IMAGE_FAMILIES, TaskFamily, make_task
from workers.evaluation import baselines, timing
from workers.evaluation.items import Item, Record, decode, encode, from_record, sha256
from workers.unroll import InnerState, OuterLoss, Problem, Unroll

SPLITS = ("train", "valid", "test")
SPLIT_SEEDS = {"outer_train": 0, "outer_test": 1}
POINTS = 25  # of a learning curve
MEASURED = 2  # minibatches of each split at each point
CACHED_BYTES = 200 * 2**20  # of tasks


class Evaluator:
    """Runs items. Compiles one unroll per optimizer: the learning rate is theta, so a grid needs no more."""

    def __init__(self, config: Config, task: TaskFamily | None = None):
        """`task` stands in for the family that the config names."""
        self.config = config
        self.objective = config.estimator.objective
        needs_images = task is None and config.task.family in IMAGE_FAMILIES
        self.task = task or make_task(config, open_dataset(config.dataset) if needs_images else None)
        self._measure = jax.jit(partial(measure, self.task, config.estimator.clamp))
        self._unrolls: dict[str, Unroll] = {}
        self._tasks: OrderedDict[tuple[int, str], Any] = OrderedDict()

    def perform(self, record: Mapping[str, Any]) -> Record:
        """The row of an item of any kind."""
        if record["kind"] == "timing":
            return self.time(record)
        return self.run(from_record(record))

    def run(self, item: Item) -> Record:
        """One unroll: a line of evaluation/<name>.jsonl."""
        problem, state, key = self.start(item)
        unroll, theta = self.unroll(item.optimizer), jnp.asarray(parameters(item))
        borders, losses, points, seconds = self.borders(), [], [], 0.0
        for begin, end in zip([0, *borders], borders):
            before = time.perf_counter()
            chunk, state = unroll.forward(theta, problem, state, end - begin)
            seconds += time.perf_counter() - before
            losses.append(chunk)
            points.append(self._measure(state.w, problem.data, jax.random.fold_in(key, end)))
            if (
                item.bound is not None
                and sum(chunk.sum(dtype=np.float64) for chunk in losses) > item.bound * borders[-1]
            ):
                break
        made = borders[len(losses) - 1]
        return {
            **describe(item, self.objective),
            **curves(self.objective, borders, losses, points),
            "seconds_per_step": seconds / made,
            "stopped": made if made < borders[-1] else None,
        }

    def time(self, record: Mapping[str, Any]) -> Record:
        """The timing protocol of `workers.evaluation.timing` on the first task of the evaluation."""
        rates = {name: baselines.theta(name, baselines.TIMED_RATE) for name in record["baselines"]}
        thetas = {"learned": decode(record["theta"]), **rates}
        if "adam8" in record:
            thetas["adam8"] = decode(record["adam8"])
        cases = {}
        for name, theta in thetas.items():
            problem, state, _ = self.start(Item(name, self.config.evaluation.seed, theta=encode(theta)))
            steps = min(timing.STEPS, self.config.task.inner_steps)
            cases[name] = partial(self.unroll(name).forward, jnp.asarray(theta), problem, state, steps)
        seconds = timing.interleaved(cases, timing.ROUNDS, time.perf_counter)
        per_step = {name: [s / steps for s in spent] for name, spent in seconds.items()}
        return timing.row(record["item"], per_step)

    def borders(self) -> list[int]:
        """The steps after which a curve has its points."""
        steps = self.config.task.inner_steps
        return sorted({round(x) for x in np.linspace(0, steps, POINTS + 1)} - {0})

    def start(self, item: Item) -> tuple[Problem, InnerState, jax.Array]:
        """The inner problem of an item, its first state, and the key of its measured batches."""
        random = np.random.default_rng([item.task, SPLIT_SEEDS[item.outer_split], item.initialisation, 1])
        batches, w, measured = (jax.random.key(int(seed)) for seed in random.integers(2**32, size=3))
        problem = Problem(self.data(item.task, item.outer_split), batches)
        return problem, self.unroll(item.optimizer).start(problem, w), measured

    def data(self, task: int, outer_split: str) -> Any:
        key = (task, outer_split)
        if key not in self._tasks:
            random = np.random.default_rng([task, SPLIT_SEEDS[outer_split]])
            self._tasks[key] = jax.device_put(self.task.sample(random, outer_split))
            while len(self._tasks) > 1 and sum(map(_bytes, self._tasks.values())) > CACHED_BYTES:
                self._tasks.popitem(last=False)
        return self._tasks[key]

    def unroll(self, optimizer: str) -> Unroll:
        if optimizer not in self._unrolls:
            family = make_family(self.config.optimizer) if optimizer == "learned" else baselines.family(optimizer)
            outer_loss = OuterLoss(self.objective, int(self.objective == "valid"), self.config.estimator.clamp)
            self._unrolls[optimizer] = Unroll(self.task, family, outer_loss, self.config.workers.segment)
        return self._unrolls[optimizer]


def _bytes(data: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(data))


def parameters(item: Item) -> np.ndarray:
    """theta [P] of an item's optimizer."""
    if item.theta is not None:
        return decode(item.theta)
    if item.rate is None:
        raise ValueError(f"{item.optimizer}: an item needs a theta or a rate")
    return baselines.theta(item.optimizer, item.rate)


def describe(item: Item, objective: str) -> Record:
    """What a row says of its item."""
    kept = ("optimizer", "rate", "task", "initialisation", "outer_split", "version")
    digest = None if item.theta is None else sha256(item.theta)
    return {"item": item.name, "theta_sha256": digest, "objective": objective, **{k: getattr(item, k) for k in kept}}


def measure(task: TaskFamily, clamp: float, w: Any, data: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Losses [3] on the splits, clamped, and accuracy [] on the test split (NaN for a family that has none)."""
    losses, accuracy = [], jnp.float32(jnp.nan)
    for k, split in enumerate(SPLITS):
        keys = jax.random.split(jax.random.fold_in(key, k), MEASURED)
        batches = [task.batch(data, one, split) for one in keys]
        values = jnp.stack([task.loss(w, batch) for batch in batches])
        losses.append(jnp.mean(jnp.where(jnp.isfinite(values), jnp.minimum(values, clamp), clamp)))
        if split == "test" and task.accuracy is not None:
            accuracy = jnp.mean(jnp.stack([task.accuracy(w, batch) for batch in batches]))
    return jnp.stack(losses), accuracy


def curves(
    objective: str, borders: list[int], losses: list[np.ndarray], points: list[tuple[jax.Array, jax.Array]]
) -> Record:
    """Curves and their means. The loss of the objective was seen after every step, the others at the borders.

    The mean of an unroll that was cut short is what its missing steps cannot bring it below: no loss is negative.
    """
    lines = {split: [float(point[0][k]) for point in points] for k, split in enumerate(SPLITS)}
    means = {split: float(np.mean(line)) for split, line in lines.items()}
    lines[objective] = [float(chunk.mean(dtype=np.float64)) for chunk in losses]
    every = np.concatenate(losses)
    missing = borders[-1] - len(every)
    means[objective] = float(every.mean(dtype=np.float64) * (len(every) / (len(every) + missing)))
    accuracy = float(points[-1][1])
    return {
        "steps": borders[: len(losses)],
        **lines,
        **{f"mean_{split}": mean for split, mean in means.items()},
        "final_test_accuracy": None if np.isnan(accuracy) else accuracy,
    }
