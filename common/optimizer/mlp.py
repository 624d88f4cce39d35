"""The paper's learned optimizer (section 4.1): one small MLP, applied to every inner-parameter separately.

Needs jax and optax only: `outertrain export` writes this source together with a theta as one module.

For each inner-parameter the MLP has 31 inputs and two outputs, a direction d and a log rate m:

    w <- w - 0.001 d exp(0.001 m)

    inputs                          number  normalised by their root mean square over the tensor
    g                                    1  yes
    momentum * rsqrt(rms + 1e-6)         5  yes   (decays .5 .9 .99 .999 .9999, no debiasing)
    w                                    1  yes
    momentum                             5  yes
    rms (running mean of g^2)            5  yes
    rsqrt(rms + 1e-6)                    5  yes
    tanh(t / x - 1)                      9  no    (x = 3 10 30 100 300 1000 3000 10000 300000)

31 x 32 + 32 + 32 x 2 + 2 = 1,090 parameters. The authors' release, by default, never updates rms, which makes ten of
these inputs constant; here rms is updated.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from common.optimizer.perceptron import random, split

DECAYS = (0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 300000.0)
STEP_SCALE = 0.001  # of both outputs


class MLPState(NamedTuple):
    """The optimizer's state; one leaf of each tree for each leaf of the parameters, of n numbers."""

    step: jax.Array  # [] int32, updates so far
    momentum: Any  # leaves [5, n] float32 or wider, m <- d m + (1 - d) g
    rms: Any  # leaves [5, n] float32 or wider, r <- d r + (1 - d) g^2


def features(momentum_features: bool = True, time_features: bool = True) -> tuple[int, int]:
    """Number of inputs that differ between inner-parameters, and of inputs that depend on the step only."""
    return 12 + 10 * momentum_features, len(TIME_SCALES) * time_features


def segments(
    hidden: int = 32, momentum_features: bool = True, time_features: bool = True
) -> tuple[tuple[int, ...], ...]:
    """Shapes of theta's four tensors, in order: hidden kernel and bias, output kernel and bias."""
    return ((sum(features(momentum_features, time_features)), hidden), (hidden,), (hidden, 2), (2,))


def init(key: jax.Array, hidden: int = 32, momentum_features: bool = True, time_features: bool = True) -> jax.Array:
    """Random theta [P] float32."""
    return random(key, segments(hidden, momentum_features, time_features))


def transform(
    theta: jax.Array, hidden: int = 32, momentum_features: bool = True, time_features: bool = True
) -> optax.GradientTransformation:
    """The optimizer with parameters theta [P], as an optax transformation. `update` needs `params`."""
    layers = split(theta, segments(hidden, momentum_features, time_features))

    def init_fn(params: Any) -> MLPState:
        def zeros() -> Any:  # called for each tree: leaves that are one array could not be donated
            return jax.tree.map(lambda w: jnp.zeros_like(_row(w), shape=(len(DECAYS), jnp.size(w))), params)

        return MLPState(jnp.zeros((), jnp.int32), zeros(), zeros())

    def update_fn(updates: Any, state: MLPState, params: Any = None) -> tuple[Any, MLPState]:
        if params is None:
            raise ValueError("the learned optimizer needs the parameters: call update(grads, state, params)")
        momentum = jax.tree.map(lambda m, g: _average(m, _row(g)), state.momentum, updates)
        rms = jax.tree.map(lambda r, g: _average(r, _row(g) ** 2), state.rms, updates)

        def one(g: jax.Array, w: jax.Array, m: jax.Array, r: jax.Array) -> jax.Array:
            inputs = _inputs(_row(g), _row(w), m, r, momentum_features)
            time = _time(state.step, inputs.dtype) if time_features else None
            return _apply(layers, inputs, time).reshape(g.shape).astype(g.dtype)

        return jax.tree.map(one, updates, params, momentum, rms), MLPState(state.step + 1, momentum, rms)

    return optax.GradientTransformation(init_fn, update_fn)


def _row(leaf: jax.Array) -> jax.Array:
    """[1, n] float32, or float64 for 64-bit leaves: in half precision a decay of .9999 would round to 1."""
    return jnp.ravel(leaf)[None].astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _average(old: jax.Array, new: jax.Array) -> jax.Array:
    """[5, n]: moving averages of `new` [1, n] at the five decays; n may be several axes."""
    decay = jnp.asarray(DECAYS, new.dtype).reshape(-1, *(1,) * (new.ndim - 1))
    return decay * old + (1 - decay) * new


def _inputs(g: jax.Array, w: jax.Array, momentum: jax.Array, rms: jax.Array, momentum_features: bool) -> jax.Array:
    """[features, n]: the inputs that differ between inner-parameters, from rows [1, n] and averages [5, n]."""
    inverse = jax.lax.rsqrt(rms + 1e-6)
    if momentum_features:
        return jnp.concatenate([g, momentum * inverse, w, momentum, rms, inverse])
    return jnp.concatenate([g, w, rms, inverse])


def _time(step: jax.Array, dtype: Any) -> jax.Array:
    return jnp.tanh(step.astype(dtype) / jnp.asarray(TIME_SCALES, dtype) - 1)


def _apply(layers: list[jax.Array], inputs: jax.Array, time: jax.Array | None) -> jax.Array:
    """[n] update of one tensor from its inputs [features, n]; n may be several axes, or none.

    The scale of each feature is the same for the whole tensor, so it multiplies the kernel's rows instead of the
    inputs, which halves the time of the reverse pass. The time inputs are the same for all and act as a bias.
    """
    kernel, bias, out_kernel, out_bias = layers
    features = inputs.shape[0]
    scale = jax.lax.rsqrt(1e-5 + jnp.mean(inputs * inputs, axis=tuple(range(1, inputs.ndim))))
    shift = bias if time is None else bias + time @ kernel[features:]
    column = (-1, *(1,) * (inputs.ndim - 1))
    hidden = jax.nn.relu(jnp.tensordot((kernel[:features] * scale[:, None]).T, inputs, 1) + shift.reshape(column))
    outputs = jnp.tensordot(out_kernel.T, hidden, 1) + out_bias.reshape(column)
    return -STEP_SCALE * outputs[0] * jnp.exp(STEP_SCALE * outputs[1])
