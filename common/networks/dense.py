"""Fully connected classifiers of the inner problems: the two-layer network of Figure 3 and the one of Figure 7."""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp


class DenseSpec(NamedTuple):
    """Shape of a classifier: dense layers with ReLU, then a linear layer."""

    inputs: int  # H * W * C
    units: tuple[int, ...]
    classes: int


def init(spec: DenseSpec, key: jax.Array) -> dict[str, jax.Array]:
    """Inner-parameters: kernels [out, in], normal of standard deviation 1 / sqrt(fan_in), truncated at two; biases zero."""
    w, sizes = {}, (spec.inputs, *spec.units, spec.classes)
    for i, (fan_in, out) in enumerate(pairwise(sizes)):
        draw = jax.random.truncated_normal(jax.random.fold_in(key, i), -2.0, 2.0, (out, fan_in))
        w[f"dense{i}_kernel"] = draw * fan_in**-0.5
        w[f"dense{i}_bias"] = jnp.zeros(out)
    return w


def logits(spec: DenseSpec, w: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """Class scores [B, classes] of uint8 images [B, H * W * C], scaled to [-1, 1] here."""
    x = images.T.astype(w["dense0_bias"].dtype) / 127.5 - 1
    for i in range(len(spec.units)):
        x = jax.nn.relu(w[f"dense{i}_kernel"] @ x + w[f"dense{i}_bias"][:, None])
    last = len(spec.units)
    return (w[f"dense{last}_kernel"] @ x + w[f"dense{last}_bias"][:, None]).T


def loss(spec: DenseSpec, w: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy over the batch; `labels` are integers [B]."""
    scores = jax.nn.log_softmax(logits(spec, w, images), axis=1)
    hot = jnp.arange(spec.classes)[None, :] == labels[:, None]
    return -jnp.sum(jnp.where(hot, scores, 0.0)) / labels.shape[0]
