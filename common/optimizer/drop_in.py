"""The learned optimizer as a drop-in replacement for an optimizer of optax: the update of `mlp`, for any parameters.

`mlp.transform` serves the unroll engine, which controls its parameters. This transformation accepts what optimizers of
optax accept: sharded, half-precision, masked, abstract, scalar and empty leaves, leaves without a gradient, extra
arguments, and finite gradients of any size. `outertrain export` writes this source together with that of `mlp`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from common.optimizer.leaves import _bounded, _check, _is_none, _wide
from common.optimizer.mlp import DECAYS, MLPState, _apply, _average, _inputs, _time, segments
from common.optimizer.perceptron import split

LARGEST_GRADIENT = 1e18  # larger finite ones count as this: the square of 1e20 is infinite in float32
LARGEST_INPUT = 1e10  # inputs beyond this are scaled down before they are squared; the MLP normalizes them anyway


def drop_in(
    theta: jax.Array, hidden: int = 32, momentum_features: bool = True, time_features: bool = True
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with parameters theta [P]; for a leaf of shape [...] the state has two leaves [5, ...].

    `update` raises ValueError without `params`, or where the shapes of a gradient and its parameter differ; `init` and
    `update` raise TypeError at leaves that are not real floating-point numbers.
    """
    layers = split(theta, segments(hidden, momentum_features, time_features))

    def init_fn(params: Any) -> MLPState:
        def zeros() -> Any:  # called for each tree: leaves that are one array could not be donated
            return jax.tree.map(_zeros, params)

        return MLPState(jnp.zeros((), jnp.int32), zeros(), zeros())

    def leaf_update(gradient: Any, w: Any, m: jax.Array, r: jax.Array, step: jax.Array) -> tuple[jax.Array, ...]:
        gradient, w, m, r = (jnp.asarray(x) for x in (gradient, w, m, r))
        _check(gradient, w)
        g = _bounded(gradient.astype(m.dtype), LARGEST_GRADIENT)[None]
        m, r = _average(m, g), _average(r, g * g)
        w = w.astype(m.dtype)[None]
        # rms is at least half of g^2, and bounds momentum: no input is large where these two are not.
        large = jnp.maximum(_peak(r), _peak(w)) > LARGEST_INPUT
        inputs = jax.lax.cond(large, _scaled_down, lambda x: x, _inputs(g, w, m, r, momentum_features))
        time = _time(step, inputs.dtype) if time_features else None
        update = _apply([layer.astype(inputs.dtype) for layer in layers], inputs, time)
        return update.astype(gradient.dtype), m, r

    def update_fn(updates: Any, state: MLPState, params: Any = None, **_: Any) -> tuple[Any, MLPState]:
        if params is None:
            raise ValueError("the learned optimizer needs the parameters: call update(grads, state, params)")
        tree: Any
        gradients, tree = jax.tree.flatten(updates, is_leaf=_is_none)
        rows = zip(gradients, *(tree.flatten_up_to(x) for x in (params, state.momentum, state.rms)), strict=True)
        step = jnp.asarray(state.step, jnp.int32)
        new = [(g, m, r) if g is None else leaf_update(g, w, m, r, step) for g, w, m, r in rows]
        result, momentum, rms = (tree.unflatten([row[k] for row in new]) for k in range(3))
        return result, MLPState(jnp.where(step < jnp.iinfo(jnp.int32).max, step + 1, step), momentum, rms)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _zeros(w: Any) -> jax.Array:
    """Zeros [5, ...] in float32 or wider, sharded like w [...]; w may be abstract."""
    zeros = jnp.zeros_like(w, dtype=_wide(w))
    return jnp.broadcast_to(zeros[None], (len(DECAYS), *zeros.shape))


def _peak(x: jax.Array, **reduction: Any) -> jax.Array:
    return jnp.max(jnp.abs(x), initial=0.0, **reduction)


def _scaled_down(inputs: jax.Array) -> jax.Array:
    """Inputs [features, ...], those of a feature divided by one number so that none exceeds LARGEST_INPUT."""
    peak = _peak(inputs, axis=tuple(range(1, inputs.ndim)), keepdims=True)
    return inputs / jnp.where(peak > LARGEST_INPUT, peak / LARGEST_INPUT, 1.0)
