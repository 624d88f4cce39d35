"""The reverse pass through model state, such as the running statistics of batch normalization.

The forward pass of the batch of a step maps (w, m) to the loss L, its gradient dL/dw, and the next model state M:

    L, dL/dw, m' = L(w, m), L_w(w, m), M(w, m)

Second derivatives of L commute, so its products with the cotangent c of the gradient, L_ww c and L_mw c, are the
derivative of (L_w, L_m) along c in w, in forward mode. Only M needs a reverse pass of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from workers.clamp import clamped_gradient
from workers.inner_step import InnerStep, Problem, inner_batch


class Visit(NamedTuple):
    """The forward pass of a step, as the reverse pass meets it."""

    w: Any  # after the update
    before: Any  # model state that the batch was computed with
    after: Any  # model state that the batch set
    step: jax.Array  # [] int32, number of the batch
    weight: jax.Array | float  # [] of the step's outer loss in the mean


class Pulled(NamedTuple):
    """What the forward pass of a step adds to the cotangents."""

    product: Any  # to that of w, by way of the gradient and of the next model state
    slope: Any  # derivative of the step's outer loss with respect to w
    model: list[jax.Array]  # cotangent of the floating-point leaves of the model state before the step


def pull_back(inner: InnerStep, problem: Problem, visit: Visit, gradient: Any, model: list[jax.Array]) -> Pulled:
    """Through the forward pass of one step.

    Args:
      gradient: cotangent of the inner gradient.
      model: cotangent of the floating-point leaves of the model state after the step.
    """
    batch = inner_batch(inner.task, problem, visit.step)
    before, rebuild = floats(visit.before)

    def next_floats(w: Any, before: list[jax.Array]) -> list[jax.Array]:
        return floats(inner.task.loss(w, batch, rebuild(before))[1])[0]

    clamped = clamped_gradient(_loss_at(inner, rebuild), inner.clamp(problem))
    still = [jnp.zeros_like(x) for x in before]
    (_, (slope, model_slope)), (_, (product, mixed)) = jax.jvp(
        lambda point: clamped(point, batch), ((visit.w, before),), ((gradient, still),)
    )
    if inner.outer_loss.outer_batches:
        model_slope = still
        after, rebuild_after = floats(visit.after)
        loss = _loss_at(inner, rebuild_after)
        slope, outer = jax.grad(lambda point: inner.fresh(problem, point, visit.step - 1, loss))((visit.w, after))
        model = [m + (visit.weight * o).astype(m.dtype) for m, o in zip(model, outer)]
    through_w, through_model = jax.vjp(next_floats, visit.w, before)[1](model)
    earlier = [a + b + (visit.weight * s).astype(a.dtype) for a, b, s in zip(through_model, mixed, model_slope)]
    return Pulled(jax.tree.map(jnp.add, product, through_w), slope, earlier)


def _loss_at(inner: InnerStep, rebuild: Callable[[list[jax.Array]], Any]) -> Callable[[Any, Any], jax.Array]:
    """(point, batch) -> loss [] at a point of weights and floating-point leaves of the model state."""

    def loss(point: tuple[Any, list[jax.Array]], batch: Any) -> jax.Array:
        return inner.task.loss_of(point[0], batch, rebuild(point[1]))

    return loss


def floats(state: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """The leaves that have derivatives, and a function from them back to the whole state; step counts have none."""
    leaves, tree = jax.tree.flatten(state)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]

    def rebuild(floats: list[jax.Array]) -> Any:
        replaced = dict(zip(places, floats))
        return jax.tree.unflatten(tree, [replaced.get(i, leaf) for i, leaf in enumerate(leaves)])

    return [leaves[i] for i in places], rebuild
