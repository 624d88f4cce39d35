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
    """(w, batch) -> min(loss, clamp) and its gradient, with a forward-over-reverse rule for reverse mode.

    The inner `where` keeps NaN out of the derivative, the outer one out of the value.
    """

    value = partial(_clamped, loss, clamp)

    @jax.custom_vjp
    def function(w: Any, batch: Any) -> tuple[jax.Array, Any]:
        return value(w, batch)

    def forward(w: Any, batch: Any) -> tuple[tuple[jax.Array, Any], tuple[Any, Any]]:
        return value(w, batch), (w, batch)

    def backward(residuals: tuple[Any, Any], cotangents: tuple[jax.Array, Any]) -> tuple[Any, None]:
        (w, batch), (loss_cotangent, gradient_cotangent) = residuals, cotangents
        gradient_of = lambda w: value(w, batch)[1]  # noqa: E731
        gradient, product = jax.jvp(gradient_of, (w,), (gradient_cotangent,))
        return jax.tree.map(lambda g, h: (loss_cotangent * g + h).astype(g.dtype), gradient, product), None

    function.defvjp(forward, backward)
    return function


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
    zeroed = jax.tree.map(lambda g: jnp.where(inside, g, jnp.zeros_like(g)), gradient)
    return jnp.where(inside, raw, jnp.asarray(clamp, raw.dtype)), zeroed
