"""Evaluation: learning curves of frozen optimizers on unseen tasks.

The inner problem of a job follows from its task and its initialisation alone, so every optimizer meets the same
classes, the same initial w and the same batches. The unroll is the one of outer-training.
"""

import json
import time
from collections import OrderedDict
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common import streams
from common.config import Config
from common.configfile import from_dict
from common.optimizer import Family, make_family
from common.task import TaskFamily, open_task
from workers.evaluation import baselines, timing
from workers.evaluation.comparison import LEARNED
from workers.evaluation.jobs import TimingJob, UnrollJob, decode, encode, sha256
from workers.evaluation.results import SPLITS, BySplit, TimingResult, UnrollResult, block_ends
from workers.normalizer import Normalizer
from workers.unroll import InnerState, OuterLoss, Problem, Unroll

SPLIT_SEEDS = {"outer_train": 0, "outer_test": 1}
POINTS = 25  # of a learning curve
MEASURED = 2  # minibatches of each split at each point
CACHED_BYTES = 200 * 2**20  # of task data


class Evaluator:
    """Runs jobs. Compiles one unroll per optimizer: the learning rate is part of theta, so a grid needs no more."""

    def __init__(self, config: Config, task: TaskFamily | None = None):
        """Args: task: replaces the task family that the configuration names."""
        self.config = config
        self.objective = config.estimator.objective
        self.task = task or open_task(config).family
        self._normalizer = Normalizer(config.task, self.task)
        self._measure = jax.jit(self._measured)
        self._accuracy = jax.jit(
            lambda model, data, key, step: accuracy(self.task, model, data, jax.random.fold_in(key, step))
        )
        self._unrolls: dict[tuple[str, str | None, bool], Unroll] = {}
        self._tasks: OrderedDict[tuple[int, str], Any] = OrderedDict()

    def run(self, job: UnrollJob) -> UnrollResult:
        """One unroll."""
        problem, state, key = self.start(job)
        unroll, theta = self.unroll(job.optimizer, job.family), jnp.asarray(parameters(job))
        scale = None if problem.scale is None else np.float32(problem.scale)
        boundaries, losses, points, seconds = self.boundaries(), [], [], 0.0
        for begin, end in zip([0, *boundaries], boundaries):
            before = time.perf_counter()
            chunk, state = unroll.forward(theta, problem, state, end - begin)
            seconds += time.perf_counter() - before
            losses.append(chunk if scale is None else chunk * scale)
            model = unroll.reported(state.optimizer, state.w), state.model
            points.append(self._measure(model, problem, key, end))
        curves = curves_of(self.objective, boundaries, losses, points)
        correct = float(self._accuracy(model, problem.data, key, end))
        return UnrollResult(
            name=job.name,
            optimizer=job.optimizer,
            theta_sha256=None if job.theta is None else sha256(job.theta),
            objective=self.objective,
            rate=job.rate,
            task=job.task,
            initialisation=job.initialisation,
            outer_split=job.outer_split,
            version=job.version,
            steps=curves.steps,
            curves=curves.losses,
            means=curves.means,
            final_test_accuracy=None if np.isnan(correct) else correct,
            seconds_per_step=seconds / boundaries[-1],
            decay=job.decay,
            schedule=job.schedule,
            blocks=blocks_of(np.concatenate(losses)),
        )

    def _measured(self, model: tuple[Any, Any], problem: Problem, key: jax.Array, step: jax.Array) -> jax.Array:
        """`measure` after a step. Losses are clamped where the outer loss is, but not normalized."""
        clamp = self.config.estimator.clamp
        limit = clamp if problem.scale is None else clamp * problem.scale
        return measure(self.task, limit, model, problem.data, jax.random.fold_in(key, step), known=self.objective)

    def time(self, job: TimingJob) -> TimingResult:
        """The timing protocol on the first task of the evaluation."""
        thetas = {LEARNED: decode(job.theta)}
        thetas |= {name: baselines.theta(name, baselines.TIMED) for name in job.baselines}
        thetas |= {name: decode(theta) for name, theta in job.searched}
        cases = {}
        for name, theta in thetas.items():
            family = job.family if name == LEARNED else None
            problem, state, _ = self.start(
                UnrollJob(name, self.config.evaluation.seed, theta=encode(theta), family=family)
            )
            steps = min(timing.STEPS, self.config.task.longest)
            cases[name] = partial(
                self.unroll(name, family, timed=True).forward, jnp.asarray(theta), problem, state, steps
            )
        seconds = timing.interleaved(cases, timing.ROUNDS, time.perf_counter)
        return timing.summarise(job.name, {name: [s / steps for s in spent] for name, spent in seconds.items()})

    def boundaries(self) -> list[int]:
        """The steps after which a curve has its points."""
        steps = self.config.task.longest
        return sorted({round(x) for x in np.linspace(0, steps, POINTS + 1)} - {0})

    def start(self, job: UnrollJob) -> tuple[Problem, InnerState, jax.Array]:
        """The inner problem of a job, its first state, and the key of its measured batches."""
        random = streams.generator(streams.EVALUATION_START, job.task, SPLIT_SEEDS[job.outer_split], job.initialisation)
        batches, w, measured = (jax.random.key(int(seed)) for seed in random.integers(2**32, size=3))
        problem = self._normalizer.problem(self.data(job.task, job.outer_split), batches, w)
        if self._family(job.optimizer, job.family).horizon is not None:
            problem = problem._replace(length=jnp.int32(self.config.task.longest))
        return problem, self.unroll(job.optimizer, job.family).start(problem, w), measured

    def data(self, task: int, outer_split: str) -> Any:
        """The images of a task, on the device."""
        key = (task, outer_split)
        if key not in self._tasks:
            random = streams.generator(streams.EVALUATION_TASK, task, SPLIT_SEEDS[outer_split])
            self._tasks[key] = jax.device_put(self.task.sample(random, outer_split))
            while len(self._tasks) > 1 and sum(map(_bytes, self._tasks.values())) > CACHED_BYTES:
                self._tasks.popitem(last=False)
        return self._tasks[key]

    def unroll(self, optimizer: str, other: str | None = None, *, timed: bool = False) -> Unroll:
        """The compiled unroll of "learned" or of a baseline.

        Args:
          other: [optimizer] of the learned one, as `UnrollJob.family`.
          timed: whether it is only timed, which leaves out losses that are not part of the training.
        """
        family = self._family(optimizer, other)
        separate = timed and family.evaluated is not None
        key = (optimizer, other, separate)
        if key not in self._unrolls:
            family = family._replace(evaluated=None) if separate else family
            outer_loss = OuterLoss(self.objective, int(self.objective == "valid"), self.config.estimator.clamp)
            self._unrolls[key] = Unroll(self.task, family, outer_loss, self.config.workers.segment)
        return self._unrolls[key]

    def _family(self, optimizer: str, other: str | None) -> Family:
        if optimizer != LEARNED:
            return baselines.family(optimizer, self.config.task.longest)
        own = self.config.optimizer
        return make_family(own if other is None else from_dict({"optimizer": json.loads(other)}).optimizer)


def _bytes(data: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(data))


def parameters(job: UnrollJob) -> np.ndarray:
    """theta [P] of a job's optimizer."""
    if job.theta is not None:
        return decode(job.theta)
    return baselines.theta(job.optimizer, job.setting)


def blocks_of(losses: np.ndarray) -> tuple[float, ...]:
    """Means [blocks] of the losses [steps] of an unroll, with five digits: they are many."""
    ends = block_ends(len(losses))
    sums = np.add.reduceat(losses.astype(np.float64), np.concatenate([[0], ends[:-1]]))
    return tuple(float(f"{mean:.5g}") for mean in sums / np.diff(ends, prepend=0))


def measure(
    task: TaskFamily, clamp: float | jax.Array, model: tuple[Any, Any], data: Any, key: jax.Array, known: str = ""
) -> jax.Array:
    """Losses [3] on the splits, clamped.

    Args:
      model: the weights, and the model state.
      known: a split whose losses the unroll itself reports: NaN here.
    """
    losses = []
    for split in SPLITS:
        if split == known:
            losses.append(jnp.float32(jnp.nan))
            continue
        values = jnp.stack([task.loss_of(model[0], one, model[1]) for one in _batches(task, data, split, key)])
        losses.append(jnp.mean(jnp.where(jnp.isfinite(values), jnp.minimum(values, clamp), clamp)))
    return jnp.stack(losses)


def accuracy(task: TaskFamily, model: tuple[Any, Any], data: Any, key: jax.Array) -> jax.Array:
    """The accuracy [] on the batches of `measure`; NaN for a family that has none."""
    if task.accuracy is None:
        return jnp.array(jnp.nan, jnp.float32)
    values = [task.accuracy_of(model[0], one, model[1]) for one in _batches(task, data, "test", key)]
    return jnp.stack(values).mean()


def _batches(task: TaskFamily, data: Any, split: str, key: jax.Array) -> list[Any]:
    keys = jax.random.split(jax.random.fold_in(key, SPLITS.index(split)), MEASURED)
    return [task.batch(data, one, split) for one in keys]


class Curves(NamedTuple):
    """The learning curves of one unroll; see `UnrollResult`."""

    steps: tuple[int, ...]
    losses: BySplit[tuple[float, ...]]
    means: BySplit[float]


def curves_of(objective: str, boundaries: list[int], losses: list[np.ndarray], points: list[jax.Array]) -> Curves:
    """Curves and means from the losses [steps] of each chunk and the measurements at its end."""
    measured = np.asarray(points)  # [points, splits]
    lines = {split: tuple(measured[:, k].tolist()) for k, split in enumerate(SPLITS)}
    means = {split: float(np.mean(line)) for split, line in lines.items()}
    lines[objective] = tuple(float(chunk.mean(dtype=np.float64)) for chunk in losses)
    means[objective] = float(np.concatenate(losses).mean(dtype=np.float64))
    return Curves(tuple(boundaries), BySplit(**lines), BySplit(**means))
