"""A segment of an unroll, forward and in reverse: loops with a dynamic trip count over the inner step.

For each step a *tape* keeps w and its gradient. The optimizer's states are recomputed from the gradients, and since the
Hessian is symmetric, the Hessian-vector product of each step is the derivative of the gradient in forward mode. Counted
in gradients it costs two thirds of one for the network's outputs and their cotangents, and two for the derivative
itself. Where they fit, the tape also keeps the *activations*, which are all that the derivative reads of the former.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from workers.inner_step import InnerState, InnerStep, Problem
from workers.model_state import Pulled, Visit, floats, pull_back

SMALL = 256  # numbers; smaller activations share a row of the tape


class Tape(NamedTuple):
    """What the reverse pass needs of each step of a segment. Row 0 is the state at its start."""

    w: jax.Array  # [segment + 1, N]
    gradient: jax.Array  # [segment + 1, N]
    activations: list[jax.Array]  # [segment, ...] each, of the gradient after each step; empty where they do not fit
    model: Any = ()  # model states, [segment + 1, ...] each


class Segment(NamedTuple):
    """A segment that has been unrolled."""

    start: InnerState
    tape: Tape
    steps: jax.Array | int  # [] int32, at most as many as the tape has rows
    weight: jax.Array | float  # [] of each of its outer losses in the objective; of its last one, for "last"


class Cotangent(NamedTuple):
    """What the reverse pass carries: derivatives of the objective, the mean of the outer losses or the last one."""

    theta: jax.Array  # [P], accumulated over the steps so far
    w: Any
    optimizer: list[jax.Array]  # of the float leaves of its state
    gradient: Any
    model: list[jax.Array]  # of the float leaves of the model state


def forward(
    step: InnerStep, segment: int, theta: jax.Array, problem: Problem, state: InnerState, n: jax.Array
) -> tuple[InnerState, jax.Array]:
    """n <= segment steps: the state after them, and their outer losses [segment] (zero beyond n)."""

    def body(i: jax.Array, carry: tuple[InnerState, jax.Array]) -> tuple[InnerState, jax.Array]:
        state, loss = step(theta, problem, carry[0])
        return state, carry[1].at[i].set(loss)

    return jax.lax.fori_loop(0, n, body, (state, _losses(segment, state)))


def forward_on_tape(
    step: InnerStep, theta: jax.Array, problem: Problem, state: InnerState, n: jax.Array, tape: Tape
) -> tuple[InnerState, jax.Array, Tape]:
    """As `forward`, on a tape that is overwritten."""
    segment = tape.w.shape[0] - 1
    tape = _written(tape, 0, state)

    def body(i: jax.Array, carry: tuple[InnerState, jax.Array, Tape]) -> tuple[InnerState, jax.Array, Tape]:
        state, losses, tape = carry
        w, optimizer = step.update(theta, state.w, state.optimizer, state.gradient)
        on_batch = step.on_batch(problem, state.step + 1, state.model)
        if tape.activations:
            (loss, gradient), derivative = jax.linearize(on_batch, w)
            rows = zip(tape.activations, _pack(_activations(derivative, w)))
            tape = tape._replace(activations=[kept.at[i].set(row) for kept, row in rows])
        else:
            loss, gradient = on_batch(w)
        model = step.next_model(problem, w, state.step + 1, state.model)
        state = InnerState(w, optimizer, gradient, state.step + 1, model)
        return state, losses.at[i].set(step.outer(loss, problem, state)), _written(tape, i + 1, state)

    return jax.lax.fori_loop(0, n, body, (state, _losses(segment, state), tape))


def reverse(step: InnerStep, theta: jax.Array, problem: Problem, segment: Segment, cotangent: Cotangent) -> Cotangent:
    """The reverse pass over a segment: from the cotangent of the state after it to that of the state at its start."""
    if problem.scale is not None:
        segment = segment._replace(weight=segment.weight / problem.scale)
    start, tape, n, _ = segment
    unravel = ravel_pytree(start.w)[1]
    saved = _optimizer_states(step, theta, segment)

    def body(i: jax.Array, carry: Cotangent) -> Cotangent:
        at = n - 1 - i
        weight = segment.weight
        if step.outer_loss.reduction == "last":
            weight = jnp.where(at == n - 1, weight, 0.0)
        pulled = _pulled(step, problem, segment._replace(weight=weight), at, carry)
        slope = unravel(tape.gradient[at + 1]) if pulled.slope is None else pulled.slope
        w_cotangent = jax.tree.map(lambda c, h, s: (c + h + weight * s).astype(c.dtype), carry.w, pulled.product, slope)
        optimizer = jax.tree.map(lambda rows: rows[at], saved)
        leaves, rebuild = floats(optimizer)

        def differentiable(
            theta: jax.Array, w: Any, leaves: list[jax.Array], gradient: Any
        ) -> tuple[Any, list[jax.Array]]:
            w, optimizer = step.update(theta, w, rebuild(leaves), gradient)
            return w, floats(optimizer)[0]

        before = unravel(tape.w[at]), leaves, unravel(tape.gradient[at])
        pull = jax.vjp(differentiable, theta, *before)[1]
        theta_cotangent, w_cotangent, optimizer, gradient = pull((w_cotangent, carry.optimizer))
        return Cotangent(carry.theta + theta_cotangent, w_cotangent, optimizer, gradient, pulled.model)

    return jax.lax.fori_loop(0, n, body, cotangent)


def _pulled(step: InnerStep, problem: Problem, segment: Segment, at: jax.Array, carry: Cotangent) -> Pulled:
    """The reverse pass through the losses of a step; `slope` is None where it is the gradient on the tape."""
    start, tape, _, weight = segment
    w = ravel_pytree(start.w)[1](tape.w[at + 1])
    if step.task.state is not None:
        before, after = (jax.tree.map(lambda rows, k=k: rows[k], tape.model) for k in (at, at + 1))
        visit = Visit(w, before, after, start.step + at + 1, weight)
        return pull_back(step, problem, visit, carry.gradient, carry.model)
    product, slope = _hessian_product(step, problem, segment, at, carry.gradient), None
    if step.outer_loss.outer_batches:
        slope = jax.grad(lambda w: step.fresh(problem, w, start.step + at, step.task.loss))(w)
    return Pulled(product, slope, [])


def _hessian_product(step: InnerStep, problem: Problem, segment: Segment, at: jax.Array, direction: Any) -> Any:
    """The product of the inner loss's Hessian after step `at` with a direction."""
    start, tape, _, _ = segment
    w = ravel_pytree(start.w)[1](tape.w[at + 1])
    on_batch = step.on_batch(problem, start.step + at + 1, start.model)
    if not tape.activations:
        return jax.jvp(lambda w: on_batch(w)[1], (w,), (direction,))[1]
    derivative = jax.linearize(on_batch, w)[1]  # its numbers are replaced by the tape's, so XLA computes none
    rows = [rows[at] for rows in tape.activations]
    return _with_activations(derivative, w, rows)(direction)[1]


def zero_tape(segment: int, state: InnerState, kept: list[jax.ShapeDtypeStruct]) -> Tape:
    """An empty tape of one segment. Args: kept: shapes of each step's `activation_rows`."""
    flat = ravel_pytree(state.w)[0]
    rows = jnp.zeros((segment + 1, flat.size), flat.dtype)
    model = jax.tree.map(lambda x: jnp.zeros((segment + 1, *jnp.shape(x)), jnp.result_type(x)), state.model)
    return Tape(rows, jnp.zeros_like(rows), [jnp.zeros((segment, *x.shape), x.dtype) for x in kept], model)


def activation_rows(step: InnerStep, problem: Problem, w: Any, at: jax.Array) -> list[jax.Array]:
    """What a tape keeps of the activations of one step, for families without model state."""
    return _pack(_activations(jax.linearize(step.on_batch(problem, at, ()), w)[1], w))


def _activations(derivative: Any, w: Any) -> list[jax.Array]:
    """The numbers that a linearized function holds, without w itself."""
    weights = {id(leaf) for leaf in jax.tree.leaves(w)}
    return [leaf for leaf in jax.tree.leaves(derivative) if id(leaf) not in weights]


def _with_activations(derivative: Any, w: Any, rows: list[jax.Array]) -> Any:
    """A linearized function with its activations replaced by those of a row of the tape."""
    leaves, tree = jax.tree.flatten(derivative)
    weights = {id(leaf) for leaf in jax.tree.leaves(w)}
    kept = iter(_unpack(rows, [leaf for leaf in leaves if id(leaf) not in weights]))
    return jax.tree.unflatten(tree, [leaf if id(leaf) in weights else next(kept) for leaf in leaves])


def _pack(leaves: list[jax.Array]) -> list[jax.Array]:
    """The leaves, the small ones of each dtype in one vector."""
    large = [leaf for leaf in leaves if leaf.size > SMALL]
    dtypes = sorted({leaf.dtype for leaf in leaves if leaf.size <= SMALL}, key=str)
    return large + [jnp.concatenate([x.ravel() for x in leaves if x.size <= SMALL and x.dtype == d]) for d in dtypes]


def _unpack(rows: list[jax.Array], like: list[jax.Array]) -> list[jax.Array]:
    """The inverse of `_pack`, for leaves of these shapes."""
    count = sum(leaf.size > SMALL for leaf in like)
    large, small = iter(rows[:count]), {row.dtype: row for row in rows[count:]}
    leaves = []
    for leaf in like:
        if leaf.size > SMALL:
            leaves.append(next(large))
        else:
            row = small[leaf.dtype]
            leaves.append(row[: leaf.size].reshape(leaf.shape))
            small[leaf.dtype] = row[leaf.size :]
    return leaves


def _written(tape: Tape, row: jax.Array | int, state: InnerState) -> Tape:
    flat_w, flat_gradient = ravel_pytree(state.w)[0], ravel_pytree(state.gradient)[0]
    model = jax.tree.map(lambda rows, x: rows.at[row].set(x), tape.model, state.model)
    return tape._replace(w=tape.w.at[row].set(flat_w), gradient=tape.gradient.at[row].set(flat_gradient), model=model)


def _losses(segment: int, state: InnerState) -> jax.Array:
    dtype = jnp.result_type(*jax.tree.leaves(state.w))
    return jnp.zeros(segment, jnp.promote_types(dtype, jnp.float32))


def _optimizer_states(step: InnerStep, theta: jax.Array, segment: Segment) -> Any:
    """The optimizer's state before each step of a segment, recomputed from the gradients, stacked on axis 0."""
    start, tape, n, _ = segment
    unravel, length = ravel_pytree(start.w)[1], tape.w.shape[0] - 1
    stacked = jax.tree.map(lambda x: jnp.zeros((length, *jnp.shape(x)), jnp.result_type(x)), start.optimizer)

    def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, rows = carry
        rows = jax.tree.map(lambda row, x: row.at[i].set(x), rows, state)
        return step.update(theta, unravel(tape.w[i]), state, unravel(tape.gradient[i]))[1], rows

    return jax.lax.fori_loop(0, n, body, (start.optimizer, stacked))[1]


def zero_cotangent(theta: jax.Array, state: InnerState) -> Cotangent:
    """Where the reverse pass begins: no loss depends on what follows the last step."""
    zeros = jax.tree.map(jnp.zeros_like, state.w)
    optimizer, model = ([jnp.zeros_like(x) for x in floats(tree)[0]] for tree in (state.optimizer, state.model))
    return Cotangent(jnp.zeros_like(theta), zeros, optimizer, zeros, model)
