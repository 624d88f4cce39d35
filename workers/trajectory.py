"""Trajectories: inner problems advanced truncation by truncation, with the state that each es estimator carries along."""

from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

import jax
import numpy as np

from common import streams
from common.config import Config
from common.task import TaskFamily
from workers.curriculum import horizon, window
from workers.estimators import (
    Pair,
    PastWindow,
    Perturbation,
    Truncation,
    antithetic_pair,
    reached_rp,
    truncation_noise,
    whole_problem_es,
    whole_problem_rp,
)
from workers.normalizer import Normalizer
from workers.unroll import InnerState, Problem, Unroll


class Trajectory(NamedTuple):
    """One inner problem in progress."""

    slot: int  # of its worker: 0 .. S - 1 for its first family of tasks, the next S for the second
    number: int  # inner problems that this trajectory has begun, this one included
    problem: Problem
    plus: InnerState  # initial state of the + branch's next truncation
    minus: InnerState  # of the - branch's; for the truncated estimators that is `plus` too
    noise: np.ndarray  # [P] persistent es: sum of the problem's draws so far; noise reuse: its one draw
    length: int  # steps of the inner problem
    past: tuple[PastWindow, ...] = ()  # the last `estimator.reach` truncations of the problem, oldest first

    @property
    def step(self) -> int:
        return int(self.plus.step)


class Advance(NamedTuple):
    """The result of one truncation of one trajectory."""

    pair: Pair
    rp: np.ndarray | None  # [P] float64; None where it is skipped
    es: np.ndarray | None  # [P] float64
    start: int  # inner step at which it began
    steps: int  # T
    finished: bool  # the inner problem reached its end
    diverged: bool  # the inner problem was abandoned


class Sampler:
    """Begins trajectories and advances them. All randomness follows from (seed, worker uid, number or sequence)."""

    def __init__(self, config: Config, task: TaskFamily, unroll: Unroll, uid: str, theta_size: int):
        self.config, self.task, self.unroll, self.theta_size = config, task, unroll, theta_size
        self._worker, self._normalizer = crc32(uid.encode()), Normalizer(config.task, task)

    def begin(self, slot: int, number: int) -> Trajectory:
        """Inner problem `number` of a slot: a new task, a new w."""
        problem, key = self._problem(slot, number)
        state = self.unroll.start(problem, key)
        return Trajectory(slot, number, problem, state, state, np.zeros(self.theta_size), self._length(slot, number))

    def _length(self, slot: int, number: int) -> int:
        task = self.config.task
        if task.shortest == task.longest:
            return task.longest
        return horizon(task, self.random(slot, number, streams.HORIZONS).uniform())

    def compilations(self) -> dict[str, Callable[[], Any]]:
        """The compiled functions of a sample by name, as calls without arguments; a call compiles the function."""
        calls, estimator = self.unroll.compilations(self.theta_size, *self._problem(0, 1)), self.config.estimator
        unused: tuple[str, ...] = ()
        if estimator.use == "es":
            unused = ("reverse", "on_tape")
        elif estimator.probe_rate == 1:
            unused = ("forward",)  # each sample computes rp
        return {name: call for name, call in calls.items() if name not in unused}

    def _problem(self, slot: int, number: int) -> tuple[Problem, jax.Array]:
        random = self.random(slot, number, streams.PROBLEMS)
        data = jax.device_put(self.task.sample(random, "outer_train"))
        batches, w = (jax.random.key(int(seed)) for seed in random.integers(2**32, size=2))
        problem = self._normalizer.problem(data, batches, w)
        if self.config.optimizer.progress:
            problem = problem._replace(length=jax.numpy.int32(self._length(slot, number)))
        return problem, w

    def advance(
        self, trajectory: Trajectory, theta: np.ndarray, ramp: int, sequence: int, *, with_rp: bool
    ) -> tuple[Advance, Trajectory]:
        """One truncation at theta [P], and the trajectory after it.

        Args:
          ramp: the update that the curriculum is at.
          sequence: number of the sample, for its random numbers.
        """
        estimator, length = self.config.estimator, trajectory.length
        random = self.random(trajectory.slot, sequence, streams.TRUNCATIONS)
        draw = random.standard_normal(self.theta_size)
        steps = window(self.config.curriculum, ramp, random.uniform(), length - trajectory.step)
        noise = truncation_noise(estimator.es, draw, trajectory.noise, first=trajectory.step == 0)
        truncation = Truncation(trajectory.problem, trajectory.plus, trajectory.minus, steps)
        perturbation = Perturbation(theta, noise.current, estimator.sigma)
        pair = antithetic_pair(self.unroll, perturbation, truncation, with_rp=with_rp)
        rp, es, carries_both = pair.rp, pair.es, estimator.es != "truncated"
        if carries_both:
            covered = sum((one.perturbation.noise for one in trajectory.past), noise.current)
            rp, fraction = reached_rp(self.unroll, pair, trajectory.past), steps / length
            rp = whole_problem_rp(pair, rp, noise.carried - covered, estimator.sigma, fraction)
            es = whole_problem_es(pair, noise.carried, estimator.sigma, fraction)
        finished = trajectory.step + steps >= self._end(trajectory)
        diverged = not finished and self._diverged(pair, both=carries_both)
        advance = Advance(pair, rp, es, trajectory.step, steps, finished, diverged)
        if finished or diverged:
            return advance, self.begin(trajectory.slot, trajectory.number + 1)
        minus = pair.minus.state if carries_both else pair.plus.state
        past = (*trajectory.past, PastWindow(perturbation, truncation))[-estimator.reach :] if estimator.reach else ()
        return advance, trajectory._replace(plus=pair.plus.state, minus=minus, noise=noise.carried, past=past)

    def _end(self, trajectory: Trajectory) -> int:
        """The inner step at which the trajectory's inner problem ends.

        The first one ends early, at a random step. Otherwise all trajectories would stay in phase for a long time, and
        every batch would hold truncations of the same phase only.
        """
        length = trajectory.length
        if trajectory.number > 1 or not self.config.curriculum.stagger:
            return length
        uniform = self.random(trajectory.slot, 0, streams.STAGGER).uniform()
        pairs = self.config.estimator.pairs
        return max(1, round(length * ((trajectory.slot % pairs + uniform) / pairs)))

    def _diverged(self, pair: Pair, *, both: bool) -> bool:
        """Whether the last loss is at the clamp: of + for the truncated estimators, otherwise of both branches.

        A pair that carries both states still has a signal while only one branch has diverged; once both have, the
        difference of their losses is zero.
        """
        ends = (pair.plus.last, pair.minus.last) if both else (pair.plus.last,)
        clamp = self.config.estimator.clamp * (1 - 1e-6)  # a mean of clamped float32 losses may round below it
        return all(last >= clamp for last in ends)

    def random(self, slot: int, number: int, stream: streams.Stream) -> np.random.Generator:
        return streams.generator(stream, self.config.seed, self._worker, slot, number)
