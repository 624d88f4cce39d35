"""The unroll engine: the only inner training step of the project, and the only loop over it.

One step updates w with the gradient at hand, then takes the loss and the gradient at the new w on the next batch:

    w' = w + transform(theta).update(gradient)      loss', gradient' = inner loss at w' on batch t + 1

so a truncation of T steps costs T gradients, its outer losses are those *after* each update, on batches that w' has not
seen, and the gradient travels in the state from one truncation to the next.

The length of an unroll is data, not a compile-time constant: it is cut into segments of at most `segment` steps, each
one call of a compiled loop with a dynamic trip count. The reverse pass goes back segment by segment. Per step a *tape*
keeps w and its gradient, so going back needs no forward replay of the network: the optimizer's state is rebuilt from
the gradients, and the Hessian-vector product of each step is forward over reverse (the Hessian is symmetric). Tapes
for which `KEPT_BYTES` leave no room are dropped and made again from the state at the segment's border.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from common.optimizer import Family
from common.task import TaskFamily
from workers.clamp import clamped_gradient, clamped_loss

KEPT_BYTES = 192 * 2**20  # of states at borders and tapes: all tapes of 500 steps of the paper's network, one of 10,000


class Problem(NamedTuple):
    """One inner problem: a task and the random key of all its batches."""

    data: Any
    key: jax.Array


class InnerState(NamedTuple):
    """An inner problem's progress."""

    w: Any
    optimizer: Any  # state of the optax transformation
    gradient: Any  # of the inner loss at w, on batch `step`
    step: jax.Array  # [] int32, updates made so far


class Tape(NamedTuple):
    """What the reverse pass keeps of each step of a segment."""

    w: jax.Array  # [segment, N]
    gradient: jax.Array  # [segment, N]


class Objective(NamedTuple):
    """The outer loss after each inner step (paper section 2.1)."""

    split: str = "train"  # "train" or "valid" images
    batches: int = 0  # fresh minibatches averaged; 0: the next inner batch's own loss, which costs nothing
    clamp: float = 10.0


class Unroll:
    """Compiled unrolls of one task family under one family of optimizers.

    A window of any length needs two compilations, one forward and one reverse; so does everything else that trains an
    inner problem: evaluation and baselines call `forward`.
    """

    def __init__(self, task: TaskFamily, family: Family, objective: Objective, segment: int):
        self.task, self.objective, self.segment = task, objective, segment
        step = make_step(task, family, objective)
        theta = jax.ShapeDtypeStruct((family.size,), jnp.float32)
        self.start = jax.jit(partial(start, task, lambda w: family.transform(_zeros(theta)).init(w), objective.clamp))
        self._forward = jax.jit(partial(forward_segment, step, segment))
        self._reverse = jax.jit(partial(reverse_segment, step, family.transform))

    def forward(
        self, theta: jax.Array, problem: Problem, state: InnerState, steps: int
    ) -> tuple[np.ndarray, InnerState]:
        """The outer losses [steps] float32 after each of the next `steps` updates, and the state after them."""
        losses = []
        for n in self._lengths(steps):
            state, loss, _ = self._forward(theta, problem, state, n)
            losses.append((loss, n))
        return np.concatenate([np.asarray(loss)[:n] for loss, n in losses]), state

    def losses_and_grad(
        self, theta: jax.Array, problem: Problem, state: InnerState, steps: int
    ) -> tuple[np.ndarray, np.ndarray, InnerState]:
        """As `forward`, with the gradient [P] in theta of the mean of the losses between the two."""
        lengths = self._lengths(steps)
        losses, borders = [], []
        tapes: deque[Tape] = deque(maxlen=self._tapes_kept(state, len(lengths)))
        for n in lengths:
            borders.append(state)
            state, loss, tape = self._forward(theta, problem, state, n)
            losses.append(loss)
            tapes.append(tape)
        gradient, cotangent = jnp.zeros_like(theta), [jnp.zeros_like(x) for x in _floats(state)[0]]
        for n, border in zip(reversed(lengths), reversed(borders)):
            tape = tapes.pop() if tapes else self._forward(theta, problem, border, n)[2]
            gradient, cotangent = self._reverse(theta, problem, border, tape, n, 1.0 / steps, gradient, cotangent)
        joined = np.concatenate([np.asarray(loss)[:n] for loss, n in zip(losses, lengths)])
        return joined, np.asarray(gradient), state

    def compilations(self, theta_size: int, problem: Problem, key: jax.Array) -> dict[str, Callable[[], Any]]:
        """What a truncation calls, by name, the slowest to compile first; calling one compiles it and runs no step."""
        theta = jnp.zeros(theta_size, jnp.float32)
        state, tape = (
            jax.tree.map(_zeros, shapes) for shapes in jax.eval_shape(lambda: self._start_and_tape(theta, problem, key))
        )
        cotangent = [jnp.zeros_like(x) for x in _floats(state)[0]]
        return {
            "reverse": lambda: self._reverse(theta, problem, state, tape, 0, 1.0, jnp.zeros_like(theta), cotangent),
            "start": lambda: self.start(problem, key),
            "forward": lambda: self._forward(theta, problem, state, 0),
        }

    def _start_and_tape(self, theta: jax.Array, problem: Problem, key: jax.Array) -> tuple[InnerState, Tape]:
        state = self.start(problem, key)
        return state, self._forward(theta, problem, state, 0)[2]

    def _tapes_kept(self, state: InnerState, borders: int) -> int:
        tape = self.segment * _nbytes((state.w, state.gradient))
        return max(1, (KEPT_BYTES - borders * _nbytes((state.w, state.optimizer, state.gradient))) // tape)

    def _lengths(self, steps: int) -> list[int]:
        return [min(self.segment, steps - done) for done in range(0, steps, self.segment)]


def start(task: TaskFamily, init_optimizer: Callable, clamp: float, problem: Problem, key: jax.Array) -> InnerState:
    """A fresh w from `key`, with the gradient on its first batch."""
    w = task.init(key)
    _, gradient = clamped_gradient(task.loss, clamp)(w, inner_batch(task, problem, jnp.int32(0)))
    return InnerState(w, init_optimizer(w), gradient, jnp.int32(0))


def inner_batch(task: TaskFamily, problem: Problem, step: jax.Array) -> Any:
    """The training batch of one step; the same for every theta, so + and - share their random numbers."""
    return task.batch(problem.data, jax.random.fold_in(problem.key, 2 * step), "train")


def outer_batch(task: TaskFamily, problem: Problem, step: jax.Array, k: int, split: str) -> Any:
    """Minibatch k of the outer loss after one step, likewise shared."""
    return task.batch(problem.data, jax.random.fold_in(jax.random.fold_in(problem.key, 2 * step + 1), k), split)


def make_step(task: TaskFamily, family: Family, objective: Objective) -> Callable:
    """(theta, problem, state) -> (next state, outer loss []): the inner training step."""
    inner = clamped_gradient(task.loss, objective.clamp)
    outer = clamped_loss(task.loss, objective.clamp)

    def step(theta: jax.Array, problem: Problem, state: InnerState) -> tuple[InnerState, jax.Array]:
        updates, optimizer = family.transform(theta).update(state.gradient, state.optimizer, state.w)
        w = jax.tree.map(jnp.add, state.w, updates)
        loss, gradient = inner(w, inner_batch(task, problem, state.step + 1))
        if objective.batches:
            fresh = (outer_batch(task, problem, state.step, k, objective.split) for k in range(objective.batches))
            loss = sum(outer(w, batch) for batch in fresh) / objective.batches
        return InnerState(w, optimizer, gradient, state.step + 1), loss

    return step


def forward_segment(
    step: Callable, segment: int, theta: jax.Array, problem: Problem, state: InnerState, n: jax.Array
) -> tuple[InnerState, jax.Array, Tape]:
    """n <= segment steps: the state after them, their outer losses [segment] (zero beyond n), and their tape."""
    flat = ravel_pytree(state.w)[0]
    rows = jnp.zeros((segment, flat.size), flat.dtype)
    losses = jnp.zeros(segment, jnp.promote_types(flat.dtype, jnp.float32))

    def body(i: jax.Array, carry: tuple[InnerState, jax.Array, Tape]) -> tuple[InnerState, jax.Array, Tape]:
        state, losses, tape = carry
        tape = Tape(
            tape.w.at[i].set(ravel_pytree(state.w)[0]), tape.gradient.at[i].set(ravel_pytree(state.gradient)[0])
        )
        state, loss = step(theta, problem, state)
        return state, losses.at[i].set(loss), tape

    return jax.lax.fori_loop(0, n, body, (state, losses, Tape(rows, rows)))


def reverse_segment(
    step: Callable,
    transform: Callable,
    theta: jax.Array,
    problem: Problem,
    border: InnerState,
    tape: Tape,
    n: jax.Array,
    loss_cotangent: jax.Array,
    gradient: jax.Array,
    cotangent: list[jax.Array],
) -> tuple[jax.Array, list[jax.Array]]:
    """Back through n steps, from the cotangent of the state after them to that of the state at their border.

    Args:
      loss_cotangent: [] weight of each of the n outer losses.
      gradient: [P] accumulated so far.
      cotangent: of the float leaves of the state.
    """
    unravel = ravel_pytree(border.w)[1]
    saved = _optimizer_states(transform, theta, border, tape, n, unravel)

    def body(i: jax.Array, carry: tuple[jax.Array, list[jax.Array]]) -> tuple[jax.Array, list[jax.Array]]:
        gradient, cotangent = carry
        at = n - 1 - i
        optimizer = jax.tree.map(lambda rows: rows[at], saved)
        state = InnerState(unravel(tape.w[at]), optimizer, unravel(tape.gradient[at]), border.step + at)
        floats, rebuild = _floats(state)

        def differentiable(theta: jax.Array, floats: list[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
            after, loss = step(theta, problem, rebuild(floats))
            return _floats(after)[0], loss

        pull = jax.vjp(differentiable, theta, floats)[1]
        theta_cotangent, cotangent = pull((cotangent, loss_cotangent))
        return gradient + theta_cotangent, cotangent

    return jax.lax.fori_loop(0, n, body, (gradient, cotangent))


def _optimizer_states(
    transform: Callable, theta: jax.Array, border: InnerState, tape: Tape, n: jax.Array, unravel: Callable
) -> Any:
    """The optimizer's state before each step of a segment, rebuilt from the gradients, stacked on axis 0."""
    stacked = jax.tree.map(lambda x: jnp.zeros((tape.w.shape[0], *jnp.shape(x)), jnp.result_type(x)), border.optimizer)

    def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, rows = carry
        rows = jax.tree.map(lambda row, x: row.at[i].set(x), rows, state)
        return transform(theta).update(unravel(tape.gradient[i]), state, unravel(tape.w[i]))[1], rows

    return jax.lax.fori_loop(0, n, body, (border.optimizer, stacked))[1]


def _nbytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _zeros(shape: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(shape.shape, shape.dtype)


def _floats(state: InnerState) -> tuple[list[jax.Array], Callable[[list[jax.Array]], InnerState]]:
    """The leaves that have derivatives, and the way back to the whole state; step counts have none."""
    leaves, tree = jax.tree.flatten(state)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def rebuild(floats: list[jax.Array]) -> InnerState:
        replaced = dict(zip(places, floats))
        return jax.tree.unflatten(tree, [replaced.get(i, leaf) for i, leaf in enumerate(leaves)])

    return [leaves[i] for i in places], rebuild
