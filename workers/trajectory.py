"""Trajectories: inner problems that are advanced truncation by truncation, with what each es estimator carries along."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

import jax
import numpy as np

from common.config import Config
from common.task import TaskFamily
from workers.curriculum import window
from workers.estimators import Pair, antithetic_pair
from workers.unroll import InnerState, Problem, Unroll


class Trajectory(NamedTuple):
    """One inner problem in progress."""

    number: int  # how many problems this trajectory has begun, this one included
    problem: Problem
    plus: InnerState  # where the + branch goes on
    minus: InnerState  # where the - branch goes on; for the truncated estimators that is `plus` too
    noise: np.ndarray  # [P] persistent es: the sum of the problem's draws so far; noise reuse: its one draw

    @property
    def step(self) -> int:
        return int(self.plus.step)


class Advance(NamedTuple):
    """What one truncation of one trajectory gave."""

    pair: Pair
    es: np.ndarray | None  # [P] float64
    start: int  # inner step it began at
    steps: int  # T
    finished: bool  # the inner problem reached its end
    diverged: bool  # it was given up


class Sampler:
    """Begins trajectories and advances them. All randomness follows from (seed, worker uid, number or sequence)."""

    def __init__(self, config: Config, task: TaskFamily, unroll: Unroll, uid: str, theta_size: int):
        self.config, self.task, self.unroll, self.theta_size = config, task, unroll, theta_size
        self._worker = crc32(uid.encode())

    def begin(self, index: int, number: int) -> Trajectory:
        """Problem `number` of trajectory `index`: a new task, a new w."""
        problem, key = self._problem(index, number)
        state = self.unroll.start(problem, key)
        return Trajectory(number, problem, state, state, np.zeros(self.theta_size))

    def compilations(self) -> dict[str, Callable[[], Any]]:
        """What samples call, by name; calling one compiles it."""
        made = self.unroll.compilations(self.theta_size, *self._problem(0, 1))
        return {name: call for name, call in made.items() if name != "reverse" or self.config.estimator.use != "es"}

    def _problem(self, index: int, number: int) -> tuple[Problem, jax.Array]:
        random = self.random(index, number, stream=0)
        data = jax.device_put(self.task.sample(random, "outer_train"))
        batches, w = (jax.random.key(int(seed)) for seed in random.integers(2**32, size=2))
        return Problem(data, batches), w

    def advance(
        self, index: int, trajectory: Trajectory, theta: np.ndarray, version: int, sequence: int, with_rp: bool
    ) -> tuple[Advance, Trajectory]:
        """One truncation of trajectory `index` at theta [P], and the trajectory after it."""
        estimator, length = self.config.estimator, self.config.task.inner_steps
        random = self.random(index, sequence, stream=1)
        draw = random.standard_normal(self.theta_size)
        steps = window(self.config.curriculum, version, random.uniform(), length - trajectory.step)
        persistent = estimator.es != "truncated"
        noise = trajectory.noise if estimator.es == "noise_reuse" and trajectory.step > 0 else draw
        states = (trajectory.plus, trajectory.minus)
        pair = antithetic_pair(self.unroll, theta, noise, estimator.sigma, trajectory.problem, states, steps, with_rp)
        carried = trajectory.noise + draw if estimator.es == "persistent" else noise
        es = pair.es
        if persistent:  # this truncation's share of the whole problem's mean loss, by all the noise behind its states
            es = (pair.plus.loss - pair.minus.loss) * carried / (2 * estimator.sigma) * (steps / length)
        finished = trajectory.step + steps >= self._end(index, trajectory.number)
        diverged = not finished and self._diverged(pair, persistent)
        advance = Advance(pair, es, trajectory.step, steps, finished, diverged)
        if finished or diverged:
            return advance, self.begin(index, trajectory.number + 1)
        return advance, trajectory._replace(
            plus=pair.plus.state, minus=pair.minus.state if persistent else pair.plus.state, noise=carried
        )

    def _end(self, index: int, number: int) -> int:
        """The step after which problem `number` of trajectory `index` is over. Without the first one's early end, all
        trajectories would be in the same phase for long: every batch asks for what its phase alone needs.
        """
        length = self.config.task.inner_steps
        if number > 1 or not self.config.curriculum.stagger:
            return length
        share = (index + self.random(index, 0, stream=2).uniform()) / self.config.estimator.pairs
        return max(1, round(length * share))

    def _diverged(self, pair: Pair, persistent: bool) -> bool:
        """The loss ended at its clamp. A persistent pair goes on until both did: from there their difference is zero."""
        ends = (pair.plus.last, pair.minus.last) if persistent else (pair.plus.last,)
        clamp = self.config.estimator.clamp * (1 - 1e-6)  # a mean of clamped float32 losses may round below it
        return all(last >= clamp for last in ends)

    def random(self, index: int, number: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, self._worker, stream, index, number])

    def dump(self, trajectories: list[Trajectory], sequence: int) -> bytes:
        """All that is needed to go on bit for bit; tasks are drawn again from their numbers."""
        arrays: dict[str, Any] = {"sequence": np.int64(sequence)}
        for index, trajectory in enumerate(trajectories):
            arrays[f"{index}.number"] = np.int64(trajectory.number)
            arrays[f"{index}.noise"] = trajectory.noise
            for k, leaf in enumerate(jax.tree.leaves((trajectory.plus, trajectory.minus))):
                arrays[f"{index}.{k}"] = np.asarray(leaf)
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def load(self, data: bytes) -> tuple[list[Trajectory], int]:
        """The trajectories and the sequence number that `dump` was given."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            trajectories = []
            for index in range(sum(name.endswith(".number") for name in arrays)):  # none before the first sample
                fresh = self.begin(index, int(arrays[f"{index}.number"]))
                leaves, tree = jax.tree.flatten((fresh.plus, fresh.minus))
                saved = [jax.numpy.asarray(arrays[f"{index}.{k}"].view(x.dtype)) for k, x in enumerate(leaves)]
                plus, minus = jax.tree.unflatten(tree, saved)
                trajectories.append(fresh._replace(plus=plus, minus=minus, noise=arrays[f"{index}.noise"]))
            return trajectories, int(arrays["sequence"])
