"""Initial weights of the networks: all of them from one draw, because each draw takes a second to compile."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TRUNCATED_NORMAL_STD = 0.87962566  # of a standard normal truncated at two standard deviations
OUTPUT_SCALE = (
    0.1  # of a classifier's last kernel, so that training starts at the loss of a uniform guess, log(classes)
)


class Drawn(NamedTuple):
    """A tensor with random initial numbers."""

    shape: tuple[int, ...]
    std: float  # of a normal distribution that is truncated at about two of them


def of_fan_in(*shape: int, scale: float = 1.0) -> Drawn:
    """A kernel [..., out] with a standard deviation of scale / sqrt(fan_in)."""
    return Drawn(shape, scale * float(np.prod(shape[:-1])) ** -0.5)


def draw(key: jax.Array, tensors: Mapping[str, Drawn]) -> dict[str, jax.Array]:
    """The tensors by name."""
    ends = np.cumsum([np.prod(one.shape) for one in tensors.values()])
    numbers = jax.random.truncated_normal(key, -2, 2, (int(ends[-1]),), jnp.float32)
    parts = zip(tensors.items(), jnp.split(numbers, ends[:-1]))
    return {name: part.reshape(one.shape) * np.float32(one.std / TRUNCATED_NORMAL_STD) for (name, one), part in parts}
