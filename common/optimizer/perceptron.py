"""Perceptrons whose kernels and biases are theta: the layout of theta, its random start, and the outputs.

Needs jax only: `outertrain export` writes this source together with that of a family.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import jax
import jax.numpy as jnp

Shapes = tuple[tuple[int, ...], ...]


def shapes(inputs: int, hidden: Sequence[int], outputs: int) -> Shapes:
    """Shapes of theta's tensors, in order: kernel and bias of each layer."""
    widths = (inputs, *hidden, outputs)
    return tuple(shape for n, m in pairwise(widths) for shape in ((n, m), (m,)))


def random(key: jax.Array, shapes: Shapes) -> jax.Array:
    """Random theta [P] float32: kernels normal of standard deviation fan_in ** -0.5, truncated at two; zero biases."""
    parts = []
    for shape in shapes:
        key, sub = jax.random.split(key)
        kernel = len(shape) == 2
        draw = (
            jax.random.truncated_normal(sub, -2.0, 2.0, shape, jnp.float32) if kernel else jnp.zeros(shape, jnp.float32)
        )
        parts.append((draw * shape[0] ** -0.5 if kernel else draw).ravel())
    return jnp.concatenate(parts)


def split(theta: jax.Array, shapes: Shapes) -> list[jax.Array]:
    """The tensors of theta [P]."""
    tensors, start = [], 0
    for shape in shapes:
        tensors.append(theta[start : start + prod(shape)].reshape(shape))
        start += prod(shape)
    return tensors


def normalized(x: jax.Array, axes: tuple[int, ...], floor: float) -> jax.Array:
    """x [k, ...] divided by its root mean square over the axes, with `floor` added to the mean square."""
    return x * jax.lax.rsqrt(floor + jnp.mean(x * x, axis=axes, keepdims=True))


def outputs(layers: Sequence[jax.Array], groups: Sequence[jax.Array], constant: jax.Array | None = None) -> jax.Array:
    """[outputs, ...] of a perceptron with rectified linear hidden layers, for each number of a tensor.

    Args:
      layers: kernel and bias of each layer. A first kernel with more rows than there are inputs is used in part.
      groups: inputs [k, ...] in the order of the first kernel's rows; axes of size 1 stand for repeated numbers, which
        are multiplied once.
      constant: inputs [k] that are the same for the whole tensor, after the others.
    """
    kernel, bias, *deeper = layers
    joined: dict[tuple[int, ...], list[tuple[jax.Array, jax.Array]]] = {}
    start = 0
    for group in groups:
        joined.setdefault(group.shape[1:], []).append((kernel[start : start + len(group)], group))
        start += len(group)
    column = (-1, *(1,) * (groups[0].ndim - 1))
    total = (bias if constant is None else bias + constant @ kernel[start:]).reshape(column)
    for pairs in joined.values():
        rows, inputs = zip(*pairs)
        total = total + jnp.tensordot(jnp.concatenate(rows).T, jnp.concatenate(inputs), 1)
    for kernel, bias in zip(deeper[::2], deeper[1::2]):
        total = jnp.tensordot(kernel.T, jax.nn.relu(total), 1) + bias.reshape(column)
    return total
