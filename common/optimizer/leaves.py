"""What the learned optimizers accept as leaves: real floating-point numbers, finite gradients of any size, and None.

Needs jax only: `outertrain export` writes this source together with that of a family.
"""

from typing import Any

import jax
import jax.numpy as jnp


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _wide(leaf: Any) -> Any:
    """The dtype of a leaf's state: float32, or float64 for 64 bits. Raises TypeError for other than real numbers."""
    _check_real(leaf)
    return jnp.float64 if jnp.finfo(jnp.result_type(leaf)).bits == 64 else jnp.float32


def _check(gradient: jax.Array, w: jax.Array) -> None:
    _check_real(gradient)
    _check_real(w)
    if gradient.shape != w.shape:
        raise ValueError(f"a gradient of shape {gradient.shape} for a parameter of shape {w.shape}: they must be equal")


def _check_real(leaf: Any) -> None:
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        remedy = (
            "wrap the optimizer in optax.contrib.split_real_and_imaginary"
            if jnp.issubdtype(dtype, jnp.complexfloating)
            else "exclude such leaves with optax.masked or optax.multi_transform"
        )
        raise TypeError(f"the learned optimizer updates real floating-point parameters, not {dtype}: {remedy}")


def _bounded(g: jax.Array, largest: float) -> jax.Array:
    """g with finite values in +- largest; infinities and NaN stay, for `optax.apply_if_finite` to see."""
    return jnp.where(jnp.isfinite(g), jnp.clip(g, -largest, largest), g)
