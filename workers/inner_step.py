"""The inner training step, and what it reads and writes.

One step updates w with the gradient from the state, then computes loss and gradient at the new w on the next batch:

    w' = w + transform(theta).update(gradient)      loss', gradient' = inner loss at w' on batch t + 1

so a truncation of T steps costs T gradients, its outer losses are those *after* each update, on batches that w' has not
been trained on, and the gradient is part of the state that passes from one truncation to the next.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.config import EstimatorConfig
from common.optimizer import Family
from common.task import TaskFamily
from workers.clamp import clamped_gradient, clamped_loss


class Problem(NamedTuple):
    """One inner problem."""

    data: Any  # one task, as `TaskFamily.sample` returns it
    key: jax.Array  # random key of all its batches
    scale: jax.Array | None = None  # [] what its outer losses are divided by; None: nothing
    length: jax.Array | None = None  # [] int32, its steps, for optimizers that see progress


class InnerState(NamedTuple):
    """The state of an inner problem between two steps."""

    w: Any
    optimizer: Any  # state of the optax transformation
    gradient: Any  # of the inner loss at w, on batch `step`
    step: jax.Array  # [] int32, updates made so far
    model: Any = ()  # model state after batch `step`; () for families without


class OuterLoss(NamedTuple):
    """The outer loss after each inner step (paper section 2.1), by the keys of `EstimatorConfig`."""

    objective: str = "train"  # split of the inner problem's images: "train" or "valid"
    outer_batches: int = 0  # fresh minibatches averaged; 0: the next inner batch's own loss, at no extra cost
    clamp: float = 10.0
    reduction: str = "mean"  # over the steps of a truncation: "mean" or "last"

    @classmethod
    def of(cls, config: EstimatorConfig) -> "OuterLoss":
        return cls(config.objective, config.outer_batches, config.clamp, config.outer_loss)

    def reduced(self, losses: np.ndarray) -> float:
        """What is minimized of the losses [T] of a truncation."""
        return float(losses[-1] if self.reduction == "last" else losses.mean(dtype=np.float64))


class InnerStep(NamedTuple):
    """The inner training step of one task family under one family of optimizers, and the parts of its derivative."""

    task: TaskFamily
    family: Family
    outer_loss: OuterLoss

    def start(self, problem: Problem, key: jax.Array) -> InnerState:
        """The initial state of an inner problem: a w drawn from `key`, and the gradient on its first batch."""
        w, first = self.task.initial(problem.data, self.task.init(key)), jnp.int32(0)
        model = () if self.task.state is None else self.task.state(key)
        _, gradient = self.gradient(problem, w, first, model)
        theta = jnp.zeros(self.family.size, jnp.float32)  # an optimizer's initial state does not depend on theta
        after = self.next_model(problem, w, first, model)
        optimizer = self.family.transform(theta).init(w)
        if self.family.horizon is not None:
            assert problem.length is not None
            optimizer = self.family.horizon(optimizer, problem.length)
        return InnerState(w, optimizer, gradient, first, after)

    def __call__(self, theta: jax.Array, problem: Problem, state: InnerState) -> tuple[InnerState, jax.Array]:
        """The next state, and the outer loss [] there."""
        w, optimizer = self.update(theta, state.w, state.optimizer, state.gradient)
        loss, gradient = self.gradient(problem, w, state.step + 1, state.model)
        model = self.next_model(problem, w, state.step + 1, state.model)
        after = InnerState(w, optimizer, gradient, state.step + 1, model)
        if self.family.evaluated is None:
            return after, self.outer(loss, problem, after)
        shown = self.family.evaluated(optimizer, w)  # hand-designed optimizers only: no reverse pass goes through here
        there = clamped_loss(self.loss(state.model), self.clamp(problem))(
            shown, inner_batch(self.task, problem, state.step + 1)
        )
        return after, self.outer(there, problem, after._replace(w=shown))

    def update(self, theta: jax.Array, w: Any, optimizer: Any, gradient: Any) -> tuple[Any, Any]:
        """w and the optimizer's state after an update."""
        updates, optimizer = self.family.transform(theta).update(gradient, optimizer, w)
        return jax.tree.map(jnp.add, w, updates), optimizer

    def loss(self, model: Any) -> Callable[[Any, Any], jax.Array]:
        """(w, batch) -> loss [] at a model state."""
        return self.task.loss if self.task.state is None else partial(self.task.loss_of, state=model)

    def clamp(self, problem: Problem) -> Any:
        """The largest loss of a problem, before it is normalized."""
        clamp = self.outer_loss.clamp
        return clamp if problem.scale is None else clamp * problem.scale

    def gradient(self, problem: Problem, w: Any, step: jax.Array, model: Any) -> tuple[jax.Array, Any]:
        """The clamped inner loss [] at w on the batch of a step, and its gradient."""
        return self.on_batch(problem, step, model)(w)

    def on_batch(self, problem: Problem, step: jax.Array, model: Any) -> Callable[[Any], tuple[jax.Array, Any]]:
        """`gradient` as a function of w; it can be differentiated in forward mode."""
        return partial(
            clamped_gradient(self.loss(model), self.clamp(problem)), batch=inner_batch(self.task, problem, step)
        )

    def next_model(self, problem: Problem, w: Any, step: jax.Array, model: Any) -> Any:
        """The model state after the batch of a step; XLA merges this forward pass with that of the gradient."""
        return model if self.task.state is None else self.task.loss(w, inner_batch(self.task, problem, step), model)[1]

    def outer(self, inner: jax.Array, problem: Problem, after: InnerState) -> jax.Array:
        """The outer loss [] after an update, normalized; without fresh batches it is the next step's inner loss."""
        value = inner
        if self.outer_loss.outer_batches:
            value = self.fresh(problem, after.w, after.step - 1, self.loss(after.model))
        return value if problem.scale is None else value / problem.scale

    def fresh(self, problem: Problem, w: Any, step: jax.Array, loss: Callable[[Any, Any], jax.Array]) -> jax.Array:
        """The mean clamped loss [] at w on the fresh outer batches of a step, not normalized."""
        count, split = self.outer_loss.outer_batches, self.outer_loss.objective
        clamped = clamped_loss(loss, self.clamp(problem))
        return sum(clamped(w, outer_batch(self.task, problem, step, k, split)) for k in range(count)) / count


def inner_batch(task: TaskFamily, problem: Problem, step: jax.Array) -> Any:
    """The training batch of one step; the same for every theta, so + and - share their random numbers."""
    return task.batch(problem.data, jax.random.fold_in(problem.key, 2 * step), "train")


def outer_batch(task: TaskFamily, problem: Problem, step: jax.Array, k: int, split: str) -> Any:
    """Minibatch k of the outer loss after one step; likewise the same for every theta."""
    return task.batch(problem.data, jax.random.fold_in(jax.random.fold_in(problem.key, 2 * step + 1), k), split)
