"""The clamp on inner and outer losses, min(loss, clamp), with derivatives that stay finite.

A non-finite loss counts as the clamp. Where the clamp is active, the gradient and all higher derivatives are zero.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from common.errors import UserError


def clamped_gradient(loss: Callable, clamp: float) -> Callable:
    """(w, batch) -> min(loss, clamp) and its gradient, which can be differentiated in forward mode.

    The inner `where` keeps NaN out of the derivative, the outer one out of the value.
    """
    return partial(_clamped, loss, clamp)


def clamped_loss(loss: Callable, clamp: float) -> Callable:
    """(w, batch) -> min(loss, clamp), for an outer loss: one reverse pass, where `clamped_gradient` takes three."""
    both = partial(_clamped, loss, clamp)

    @jax.custom_vjp
    def function(w: Any, batch: Any) -> jax.Array:
        return both(w, batch)[0]

    function.defvjp(
        both, lambda gradient, cotangent: (jax.tree.map(lambda g: (cotangent * g).astype(g.dtype), gradient), None)
    )
    return function


def _wide_scalar(loss: Callable, w: Any, batch: Any) -> jax.Array:
    """The loss in float32 or wider, so that losses of low-precision weights are averaged without rounding.

    Raises UserError unless it is a floating-point scalar.
    """
    value = jnp.asarray(loss(w, batch))
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(
            f"the task's loss is {value.dtype} of shape {value.shape}, but a floating-point scalar of shape () is "
            "needed: return the mean over the batch, for example `jnp.mean(losses)`, or convert it with `.astype`"
        )
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))


def _clamped(loss: Callable, clamp: float, w: Any, batch: Any) -> tuple[jax.Array, Any]:
    raw, gradient = jax.value_and_grad(partial(_wide_scalar, loss))(w, batch)
    inside = jnp.isfinite(raw) & (raw < clamp)
    zeroed = jax.tree.map(lambda g: jax.lax.select(inside, g, jnp.zeros_like(g)), gradient)
    return jnp.where(inside, raw, jnp.asarray(clamp, raw.dtype)), zeroed
