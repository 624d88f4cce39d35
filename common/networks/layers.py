"""Layers that the networks share, over the last axis of activations [..., width]. Weights are found by the layer's name."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Weights = dict[str, jax.Array]

EPSILON = 1e-5  # added to variances


def linear(w: Weights, name: str, x: jax.Array) -> jax.Array:
    """`x @ kernel + bias`."""
    y = x @ w[f"{name}/kernel"]
    return y + jnp.broadcast_to(w[f"{name}/bias"], y.shape)


def normalized(w: Weights, name: str, x: jax.Array) -> jax.Array:
    """Layer normalisation (Ba, Kiros, Hinton 2016, arXiv:1607.06450), with a scale and a shift."""
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + EPSILON)
    return x * jnp.broadcast_to(w[f"{name}/scale"], x.shape) + jnp.broadcast_to(w[f"{name}/shift"], x.shape)


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy [] of scores [..., classes] for integer labels [...], in nats."""
    classes = jnp.expand_dims(jnp.arange(scores.shape[-1]), tuple(range(labels.ndim)))
    hot = classes == labels[..., None]
    return -jnp.sum(jnp.where(hot, jax.nn.log_softmax(scores), 0.0)) / labels.size


def precision(w: Weights) -> jnp.dtype:
    """The floating-point type of the weights, in which a network computes."""
    return next(iter(w.values())).dtype


def biases(widths: Mapping[str, int]) -> Weights:
    """Biases of zero by the name of their layer."""
    return {f"{name}/bias": jnp.zeros(width, jnp.float32) for name, width in widths.items()}


def norms(widths: Mapping[str, int]) -> Weights:
    """Scales of one and shifts of zero by the name of their normalisation."""
    scales = {f"{name}/scale": jnp.ones(width, jnp.float32) for name, width in widths.items()}
    return scales | {f"{name}/shift": jnp.zeros(width, jnp.float32) for name, width in widths.items()}
