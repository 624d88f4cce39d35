"""The paper's learned optimizer (section 4.1): one small MLP, applied to every inner-parameter by itself.

Needs jax and optax only, so that `outertrain export` can hand this file to anyone together with a theta.

For each inner-parameter the MLP sees 31 numbers and gives two, a direction d and a log rate m:

    w <- w - 0.001 d exp(0.001 m)

    inputs                          number  normalised by their root mean square over the tensor
    g                                    1  yes
    momentum * rsqrt(rms + 1e-6)         5  yes   (decays .5 .9 .99 .999 .9999, no debiasing)
    w                                    1  yes
    momentum                             5  yes
    rms (running mean of g^2)            5  yes
    rsqrt(rms + 1e-6)                    5  yes
    tanh(t / x - 1)                      9  no    (x = 3 10 30 100 300 1000 3000 10000 300000)

31 x 32 + 32 + 32 x 2 + 2 = 1,090 parameters. The authors' release, by default, never updates rms, which leaves ten of
these inputs without content; here rms is alive.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

DECAYS = (0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 300000.0)
STEP_SCALE = 0.001  # of both outputs


class MLPState(NamedTuple):
    """N numbers of all tensors side by side, in the order of the pytree's leaves."""

    step: jax.Array  # [] int32, how many updates were made
    momentum: jax.Array  # [5, N] float32 or wider, m <- d m + (1 - d) g
    rms: jax.Array  # [5, N] float32 or wider, r <- d r + (1 - d) g^2


def features(momentum_features: bool = True, time_features: bool = True) -> tuple[int, int]:
    """Number of inputs per inner-parameter, and of inputs that depend on the step alone."""
    return 12 + 10 * momentum_features, len(TIME_SCALES) * time_features


def segments(
    hidden: int = 32, momentum_features: bool = True, time_features: bool = True
) -> tuple[tuple[int, ...], ...]:
    """Shapes of theta's four tensors, in order: hidden kernel and bias, output kernel and bias."""
    return ((sum(features(momentum_features, time_features)), hidden), (hidden,), (hidden, 2), (2,))


def init(key: jax.Array, hidden: int = 32, momentum_features: bool = True, time_features: bool = True) -> jax.Array:
    """Random theta [P] float32: truncated normal kernels of deviation 1 / sqrt(fan_in), zero biases."""
    parts = []
    for shape in segments(hidden, momentum_features, time_features):
        key, sub = jax.random.split(key)
        kernel = len(shape) == 2
        draw = (
            jax.random.truncated_normal(sub, -2.0, 2.0, shape, jnp.float32) if kernel else jnp.zeros(shape, jnp.float32)
        )
        parts.append((draw * shape[0] ** -0.5 if kernel else draw).ravel())
    return jnp.concatenate(parts)


def transform(
    theta: jax.Array, hidden: int = 32, momentum_features: bool = True, time_features: bool = True
) -> optax.GradientTransformation:
    """The optimizer with parameters theta [P], as an optax transformation. `update` needs `params`."""
    layers = _layers(theta, segments(hidden, momentum_features, time_features))

    def init_fn(params: Any) -> MLPState:
        like = _flat(jax.tree.leaves(params))
        zeros = jnp.zeros((len(DECAYS), like.size), like.dtype)
        return MLPState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update_fn(updates: Any, state: MLPState, params: Any = None) -> tuple[Any, MLPState]:
        if params is None:
            raise ValueError("the learned optimizer reads the parameters: call update(grads, state, params)")
        leaves, tree = jax.tree.flatten(updates)
        g, w = _flat(leaves), _flat(jax.tree.leaves(params))
        decay = jnp.asarray(DECAYS, g.dtype)[:, None]
        momentum = decay * state.momentum + (1 - decay) * g[None]
        rms = decay * state.rms + (1 - decay) * (g * g)[None]
        inputs = _inputs(g, w, momentum, rms, momentum_features)
        scale = _inverse_rms(inputs, [leaf.size for leaf in leaves])
        step = _apply(layers, inputs * scale, _time(state.step, g.dtype) if time_features else None)
        return jax.tree.unflatten(tree, _split(step, leaves)), MLPState(state.step + 1, momentum, rms)

    return optax.GradientTransformation(init_fn, update_fn)


def _layers(theta: jax.Array, shapes: tuple[tuple[int, ...], ...]) -> list[jax.Array]:
    layers, start = [], 0
    for shape in shapes:
        size = 1
        for n in shape:
            size *= n
        layers.append(theta[start : start + size].reshape(shape))
        start += size
    return layers


def _flat(leaves: list[jax.Array]) -> jax.Array:
    """[N] float32, or float64 for 64-bit leaves: a decay of .9999 is 1 in half precision."""
    flat = jnp.concatenate([leaf.ravel() for leaf in leaves])
    return flat.astype(jnp.promote_types(flat.dtype, jnp.float32))


def _split(flat: jax.Array, like: list[jax.Array]) -> list[jax.Array]:
    parts, start = [], 0
    for leaf in like:
        parts.append(flat[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return parts


def _inputs(g: jax.Array, w: jax.Array, momentum: jax.Array, rms: jax.Array, momentum_features: bool) -> jax.Array:
    """[features, N]: the inputs that differ between inner-parameters."""
    inverse = jax.lax.rsqrt(rms + 1e-6)
    if momentum_features:
        return jnp.concatenate([g[None], momentum * inverse, w[None], momentum, rms, inverse])
    return jnp.concatenate([g[None], w[None], rms, inverse])


def _inverse_rms(inputs: jax.Array, sizes: list[int]) -> jax.Array:
    """[features, N]: 1 / sqrt(1e-5 + mean of x^2 over the tensor), the same for all entries of one tensor."""
    squares, columns, start = inputs * inputs, [], 0
    for size in sizes:
        mean = jnp.mean(squares[:, start : start + size], axis=1, keepdims=True)
        columns.append(jnp.broadcast_to(jax.lax.rsqrt(1e-5 + mean), (inputs.shape[0], size)))
        start += size
    return jnp.concatenate(columns, axis=1)


def _time(step: jax.Array, dtype: Any) -> jax.Array:
    return jnp.tanh(step.astype(dtype) / jnp.asarray(TIME_SCALES, dtype) - 1)


def _apply(layers: list[jax.Array], inputs: jax.Array, time: jax.Array | None) -> jax.Array:
    """[N] update. The time inputs are equal for all inner-parameters, so they act as a bias of the hidden layer."""
    kernel, bias, out_kernel, out_bias = layers
    n = inputs.shape[0]
    shift = bias if time is None else bias + time @ kernel[n:]
    hidden = jax.nn.relu(kernel[:n].T @ inputs + shift[:, None])
    direction, magnitude = out_kernel.T @ hidden + out_bias[:, None]
    return -STEP_SCALE * direction * jnp.exp(STEP_SCALE * magnitude)
