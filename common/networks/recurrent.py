"""Recurrent networks of the inner problems, gated recurrent units that predict the next character of a text.

Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder, arXiv:1406.1078, with the reset gate after the
product, so that a step is one product of its state. The products of the inputs are outside of the loop over positions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from common.networks import initial, layers
from common.networks.initial import OUTPUT_SCALE, of_fan_in
from common.networks.layers import Weights, linear, precision


class RecurrentSpec(NamedTuple):
    """Shape of a network: `depth` layers of `width` gated units, linear layer."""

    vocabulary: int
    width: int
    depth: int


def init(spec: RecurrentSpec, key: jax.Array) -> Weights:
    """Inner-parameters: kernels [in, out] of fan-in scale, of the three gates side by side; biases zero."""
    width, drawn = spec.width, {}
    for i in range(spec.depth):
        # Of the vectors that select a character one number is not zero: their products have the variance of the kernel.
        drawn[f"input{i}/kernel"] = (
            of_fan_in(width, 3 * width) if i else initial.Drawn((spec.vocabulary, 3 * width), 1.0)
        )
        drawn[f"state{i}/kernel"] = of_fan_in(width, 3 * width)
    drawn |= {"output/kernel": of_fan_in(width, spec.vocabulary, scale=OUTPUT_SCALE)}
    names = [f"{kind}{i}" for i in range(spec.depth) for kind in ("input", "state")]
    return initial.draw(key, drawn) | layers.biases({name: 3 * width for name in names} | {"output": spec.vocabulary})


def logits(spec: RecurrentSpec, w: Weights, text: jax.Array) -> jax.Array:
    """Scores [B, T, vocabulary] of each next character, given it and all before it: text [B, T] int32."""
    x = jax.nn.one_hot(text.T, spec.vocabulary, dtype=precision(w))  # [T, B, vocabulary]
    for i in range(spec.depth):
        x = _layer(w, i, linear(w, f"input{i}", x))
    return jnp.moveaxis(linear(w, "output", x), 0, 1)


def _layer(w: Weights, i: int, gates: jax.Array) -> jax.Array:
    """The states [T, B, width] of a layer from its inputs' part of the gates, [T, B, 3 width]."""

    def step(state: jax.Array, given: jax.Array) -> tuple[jax.Array, jax.Array]:
        reset, update, new = jnp.split(given, 3, axis=-1)
        own_reset, own_update, own_new = jnp.split(linear(w, f"state{i}", state), 3, axis=-1)
        kept = jax.nn.sigmoid(update + own_update)
        proposed = jnp.tanh(new + jax.nn.sigmoid(reset + own_reset) * own_new)
        state = kept * state + (1 - kept) * proposed
        return state, state

    first = jnp.zeros((gates.shape[1], gates.shape[2] // 3), gates.dtype)
    return jax.lax.scan(step, first, gates)[1]
