"""The problems that figures are measured on: the paper's network and the quickstart's, on images of noise."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.config import Config, OptimizerConfig, TaskConfig
from common.optimizer import Family, make_family
from common.task import TaskFamily, classifier
from workers.estimators import Truncation
from workers.unroll import InnerState, OuterLoss, Problem, Unroll


@dataclass
class Noise:
    """A dataset of random pixels: the duration of a step does not depend on the content of the images."""

    image_shape: tuple[int, int, int]
    images_per_class: int
    classes: int = 40
    fingerprint: str = ""

    def max_count(self, split: str) -> int:
        return self.images_per_class

    def images(self, cls: int, split: str) -> np.ndarray:
        random = np.random.default_rng(cls)
        return random.integers(0, 256, (self.images_per_class, *self.image_shape), np.uint8)


class Case(NamedTuple):
    """A network, its batch and its data."""

    task: TaskConfig
    data: Noise

    def family(self) -> TaskFamily:
        return classifier(Config(task=self.task), self.data)


PAPER = Case(TaskConfig(units=(32, 32, 32), strides=(2, 1, 1), batch_size=128), Noise((32, 32, 3), 1300))
QUICKSTART = Case(TaskConfig(strides=(2, 2, 1)), Noise((16, 16, 3), 150))
LEARNED = OptimizerConfig()


class Subject(NamedTuple):
    """An unroll with everything it is called with."""

    unroll: Unroll
    theta: jax.Array  # [P]
    problem: Problem
    state: InnerState

    def forward(self, steps: int) -> InnerState:
        """The next `steps` steps; returns when they are computed."""
        return jax.block_until_ready(self.unroll.forward(self.theta, self.problem, self.state, steps)[1])

    def backward(self, steps: int) -> np.ndarray:
        """The outer gradient [P] over the next `steps` steps."""
        return self.unroll.losses_and_grad(self.theta, self.problem, self.state, steps)[1]

    def truncation(self, steps: int) -> Truncation:
        return Truncation(self.problem, self.state, self.state, steps)


def subject(task: TaskFamily, family: Family, make: type[Unroll] = Unroll, segment: int = 50) -> Subject:
    unroll = make(task, family, OuterLoss(), segment)
    problem = problem_of(task)
    return Subject(unroll, family.init(jax.random.key(0)), problem, unroll.start(problem, jax.random.key(2)))


def problem_of(task: TaskFamily) -> Problem:
    return Problem(jax.device_put(task.sample(np.random.default_rng(0), "outer_train")), jax.random.key(1))


def learned() -> Family:
    """The paper's learned optimizer."""
    return make_family(LEARNED)


def widened(state: InnerState) -> InnerState:
    """The same numbers in float64; needs `jax.enable_x64`."""
    return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)
