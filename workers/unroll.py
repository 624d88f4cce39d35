"""The unroll engine: the project's only inner training step, and the only loop over it.

One step updates w with the gradient from the state, then computes loss and gradient at the new w on the next batch:

    w' = w + transform(theta).update(gradient)      loss', gradient' = inner loss at w' on batch t + 1

so a truncation of T steps costs T gradients, its outer losses are those *after* each update, on batches that w' has not
been trained on, and the gradient is part of the state that passes from one truncation to the next.

The length of an unroll is data, not a compile-time constant: the unroll is split into segments of at most `segment`
steps, each one call of a compiled loop with a dynamic trip count. The reverse pass runs segment by segment. For each
step a *tape* keeps w and its gradient, so that the reverse pass need not repeat the forward pass of the network: the
optimizer's state is recomputed from the gradients, and the Hessian-vector product of each step is forward over reverse
(the Hessian is symmetric). Tapes that do not fit into `KEPT_BYTES` are dropped and recomputed from the state at the
segment's boundary.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from common.config import EstimatorConfig
from common.optimizer import Family
from common.task import TaskFamily
from workers.clamp import clamped_gradient, clamped_loss

KEPT_BYTES = 192 * 2**20  # for boundary states and tapes: all 500 tapes of the paper's network, one of 10,000


class Problem(NamedTuple):
    """One inner problem."""

    data: Any  # one task, as `TaskFamily.sample` returns it
    key: jax.Array  # random key of all its batches


class InnerState(NamedTuple):
    """The state of an inner problem between two steps."""

    w: Any
    optimizer: Any  # state of the optax transformation
    gradient: Any  # of the inner loss at w, on batch `step`
    step: jax.Array  # [] int32, updates made so far


class Tape(NamedTuple):
    """What the reverse pass keeps of each step of a segment."""

    w: jax.Array  # [segment, N]
    gradient: jax.Array  # [segment, N]


class OuterLoss(NamedTuple):
    """The outer loss after each inner step (paper section 2.1), by the keys of `EstimatorConfig`."""

    objective: str = "train"  # split of the inner problem's images: "train" or "valid"
    outer_batches: int = 0  # fresh minibatches averaged; 0: the next inner batch's own loss, at no extra cost
    clamp: float = 10.0

    @classmethod
    def of(cls, config: EstimatorConfig) -> "OuterLoss":
        return cls(config.objective, config.outer_batches, config.clamp)


class Segment(NamedTuple):
    """A segment that has been unrolled."""

    start: InnerState  # at its boundary
    tape: Tape
    steps: jax.Array | int  # [] int32, at most as many as the tape has rows
    weight: jax.Array | float  # [] of each of its outer losses in the mean


class Cotangent(NamedTuple):
    """What the reverse pass carries: derivatives of the mean outer loss."""

    theta: jax.Array  # [P], accumulated over the steps so far
    state: list[jax.Array]  # of the float leaves of the inner state


class Unroll:
    """Compiled unrolls of one task family under one family of optimizers.

    A window of any length needs two compilations, one forward and one reverse. Evaluation and baselines, which train
    inner problems without an outer gradient, call `forward`.

    >>> import numpy as np, jax
    >>> from common.config import OptimizerConfig, TaskConfig
    >>> from common.optimizer import make_family
    >>> from common.task import quadratic
    >>> task = quadratic(TaskConfig(family="quadratic"))
    >>> family = make_family(OptimizerConfig(family="sgd", learning_rate=0.1))
    >>> unroll = Unroll(task, family, OuterLoss(), segment=10)
    >>> problem = Problem(task.sample(np.random.default_rng(0), "outer_train"), jax.random.key(0))
    >>> state, theta = unroll.start(problem, jax.random.key(1)), family.init(jax.random.key(2))
    >>> losses, state = unroll.forward(theta, problem, state, steps=25)
    >>> losses.shape, bool(losses[-1] < losses[0])
    ((25,), True)
    >>> losses, gradient, state = unroll.losses_and_grad(theta, problem, state, steps=5)
    >>> gradient.shape, int(state.step)
    ((2,), 30)
    """

    def __init__(self, task: TaskFamily, family: Family, outer_loss: OuterLoss, segment: int):
        """`segment` is the number of steps of one compiled loop, `WorkersConfig.segment`."""
        self.task, self.outer_loss, self.segment = task, outer_loss, segment
        step = make_step(task, family, outer_loss)
        theta = jax.ShapeDtypeStruct((family.size,), jnp.float32)
        init_optimizer = lambda w: family.transform(_zeros(theta)).init(w)  # noqa: E731
        self.start = jax.jit(partial(start, task, init_optimizer, outer_loss.clamp))
        self.reported = jax.jit(family.reported)
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
        """`forward` with the gradient [P] of the mean of the losses with respect to theta, as the second result."""
        lengths = self._lengths(steps)
        losses, boundaries = [], []
        tapes: deque[Tape] = deque(maxlen=self._tapes_kept(state, len(lengths)))
        for n in lengths:
            boundaries.append(state)
            state, loss, tape = self._forward(theta, problem, state, n)
            losses.append(loss)
            tapes.append(tape)
        cotangent = _zero_cotangent(theta, state)
        for n, boundary in zip(reversed(lengths), reversed(boundaries)):
            tape = tapes.pop() if tapes else self._forward(theta, problem, boundary, n)[2]
            cotangent = self._reverse(theta, problem, Segment(boundary, tape, n, 1.0 / steps), cotangent)
        joined = np.concatenate([np.asarray(loss)[:n] for loss, n in zip(losses, lengths)])
        return joined, np.asarray(cotangent.theta), state

    def compilations(self, theta_size: int, problem: Problem, key: jax.Array) -> dict[str, Callable[[], Any]]:
        """The compiled functions of a truncation by name, as calls that run no step; slowest to compile first."""
        theta = jnp.zeros(theta_size, jnp.float32)
        state, tape = (
            jax.tree.map(_zeros, shapes) for shapes in jax.eval_shape(lambda: self._start_and_tape(theta, problem, key))
        )
        segment, cotangent = Segment(state, tape, 0, 1.0), _zero_cotangent(theta, state)
        return {
            "reverse": lambda: self._reverse(theta, problem, segment, cotangent),
            "start": lambda: self.start(problem, key),
            "forward": lambda: self._forward(theta, problem, state, 0),
        }

    def _start_and_tape(self, theta: jax.Array, problem: Problem, key: jax.Array) -> tuple[InnerState, Tape]:
        state = self.start(problem, key)
        return state, self._forward(theta, problem, state, 0)[2]

    def _tapes_kept(self, state: InnerState, boundaries: int) -> int:
        tape = self.segment * _nbytes((state.w, state.gradient))
        return max(1, (KEPT_BYTES - boundaries * _nbytes((state.w, state.optimizer, state.gradient))) // tape)

    def _lengths(self, steps: int) -> list[int]:
        return [min(self.segment, steps - done) for done in range(0, steps, self.segment)]


def start(task: TaskFamily, init_optimizer: Callable, clamp: float, problem: Problem, key: jax.Array) -> InnerState:
    """The initial state of an inner problem: a w drawn from `key`, and the gradient on its first batch."""
    w = task.init(key)
    _, gradient = clamped_gradient(task.loss, clamp)(w, inner_batch(task, problem, jnp.int32(0)))
    return InnerState(w, init_optimizer(w), gradient, jnp.int32(0))


def inner_batch(task: TaskFamily, problem: Problem, step: jax.Array) -> Any:
    """The training batch of one step; the same for every theta, so + and - share their random numbers."""
    return task.batch(problem.data, jax.random.fold_in(problem.key, 2 * step), "train")


def outer_batch(task: TaskFamily, problem: Problem, step: jax.Array, k: int, split: str) -> Any:
    """Minibatch k of the outer loss after one step; likewise the same for every theta."""
    return task.batch(problem.data, jax.random.fold_in(jax.random.fold_in(problem.key, 2 * step + 1), k), split)


def make_step(task: TaskFamily, family: Family, outer_loss: OuterLoss) -> Callable:
    """(theta, problem, state) -> (next state, outer loss []): the inner training step."""
    inner = clamped_gradient(task.loss, outer_loss.clamp)
    outer = clamped_loss(task.loss, outer_loss.clamp)
    count, split = outer_loss.outer_batches, outer_loss.objective

    def step(theta: jax.Array, problem: Problem, state: InnerState) -> tuple[InnerState, jax.Array]:
        updates, optimizer = family.transform(theta).update(state.gradient, state.optimizer, state.w)
        w = jax.tree.map(jnp.add, state.w, updates)
        batch = inner_batch(task, problem, state.step + 1)
        loss, gradient = inner(w, batch)
        shown = family.reported(optimizer, w)
        if count:
            fresh = (outer_batch(task, problem, state.step, k, split) for k in range(count))
            loss = sum(outer(shown, batch) for batch in fresh) / count
        elif family.evaluated is not None:
            loss = outer(shown, batch)
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
    segment: Segment,
    cotangent: Cotangent,
) -> Cotangent:
    """The reverse pass over a segment: from the cotangent of the state after it to that of the state at its start."""
    start, tape, n, weight = segment
    unravel = ravel_pytree(start.w)[1]
    saved = _optimizer_states(transform, theta, segment, unravel)

    def body(i: jax.Array, carry: Cotangent) -> Cotangent:
        at = n - 1 - i
        optimizer = jax.tree.map(lambda rows: rows[at], saved)
        state = InnerState(unravel(tape.w[at]), optimizer, unravel(tape.gradient[at]), start.step + at)
        floats, rebuild = _floats(state)

        def differentiable(theta: jax.Array, floats: list[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
            after, loss = step(theta, problem, rebuild(floats))
            return _floats(after)[0], loss

        pull = jax.vjp(differentiable, theta, floats)[1]
        theta_cotangent, state_cotangent = pull((carry.state, weight))
        return Cotangent(carry.theta + theta_cotangent, state_cotangent)

    return jax.lax.fori_loop(0, n, body, cotangent)


def _optimizer_states(transform: Callable, theta: jax.Array, segment: Segment, unravel: Callable) -> Any:
    """The optimizer's state before each step of a segment, recomputed from the gradients, stacked on axis 0."""
    start, tape, n, _ = segment
    stacked = jax.tree.map(lambda x: jnp.zeros((tape.w.shape[0], *jnp.shape(x)), jnp.result_type(x)), start.optimizer)

    def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, rows = carry
        rows = jax.tree.map(lambda row, x: row.at[i].set(x), rows, state)
        return transform(theta).update(unravel(tape.gradient[i]), state, unravel(tape.w[i]))[1], rows

    return jax.lax.fori_loop(0, n, body, (start.optimizer, stacked))[1]


def _zero_cotangent(theta: jax.Array, state: InnerState) -> Cotangent:
    return Cotangent(jnp.zeros_like(theta), [jnp.zeros_like(x) for x in _floats(state)[0]])


def _nbytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _zeros(shape: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(shape.shape, shape.dtype)


def _floats(state: InnerState) -> tuple[list[jax.Array], Callable[[list[jax.Array]], InnerState]]:
    """The leaves that have derivatives, and a function from them back to the whole state; step counts have none."""
    leaves, tree = jax.tree.flatten(state)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def rebuild(floats: list[jax.Array]) -> InnerState:
        replaced = dict(zip(places, floats))
        return jax.tree.unflatten(tree, [replaced.get(i, leaf) for i, leaf in enumerate(leaves)])

    return [leaves[i] for i in places], rebuild
