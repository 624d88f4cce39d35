"""The normalizer of a task family: what the outer losses of an inner problem are divided by (`task.normalizer`).

The inner problem itself is trained on its own loss. Its clamp is that of the outer loss, multiplied by the normalizer,
so that a problem's inner and outer losses are clamped at the same step.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from common.config import TaskConfig
from common.errors import UserError
from common.task import TaskFamily
from workers.inner_step import Problem, inner_batch


class Normalizer:
    """Makes the inner problems of a family, each with its scale."""

    def __init__(self, config: TaskConfig, task: TaskFamily):
        self._config, self._fixed = config, None
        if config.normalizer == "classes":
            self._fixed = math.log(task.classes)
        elif not isinstance(config.normalizer, str):
            self._fixed = config.normalizer

        def first(problem: Problem, key: jax.Array) -> jax.Array:
            """The loss at the initial weights, on the first training batch."""
            w, state = task.initial(problem.data, task.init(key)), () if task.state is None else task.state(key)
            return jnp.asarray(task.loss_of(w, inner_batch(task, problem, jnp.int32(0)), state))

        self._first = jax.jit(first)

    def problem(self, data: Any, batches: jax.Array, key: jax.Array) -> Problem:
        """The inner problem of a task.

        Args:
          batches: random key of its batches.
          key: of its initial weights.

        Raises:
          UserError: the loss at the initial weights cannot be a divisor.
        """
        problem = Problem(data, batches)
        if self._config.normalizer == "none":
            return problem
        scale = float(self._first(problem, key)) if self._fixed is None else self._fixed
        if not 0 < scale < math.inf:
            raise UserError(
                f"task.normalizer = 'initial' divides by the loss at the initial weights, which is {scale:g} for a task of "
                f"the family {self._config.family!r}: use a number instead"
            )
        return problem._replace(scale=jnp.float32(scale))
