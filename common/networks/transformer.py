"""Decoder-only transformers of the inner problems, which predict the next character of a text.

Layer normalisation comes before each block (Xiong et al. 2020, On Layer Normalization in the Transformer Architecture).
Activations are `[B, T, width]`: of the layouts measured, this one has the fastest gradient inside a loop, because both the
layers and the heads are matrix products (docs/tasks.md). Characters enter and leave by products with one-hot vectors: the
derivative of an index is a scatter, which is slow inside a loop.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from common.networks import initial, layers
from common.networks.initial import OUTPUT_SCALE, Drawn, of_fan_in
from common.networks.layers import Weights, linear, normalized, precision

CHARACTERS, POSITIONS = "characters", "positions"  # names of the embeddings
HIDDEN = 4  # width of a hidden layer over the width of the model


class TransformerSpec(NamedTuple):
    """Shape of a transformer: embeddings of characters and positions, `depth` blocks, linear layer."""

    vocabulary: int
    width: int  # a multiple of heads
    depth: int
    heads: int
    context: int  # characters of a sequence (T)


def init(spec: TransformerSpec, key: jax.Array) -> Weights:
    """Inner-parameters: kernels [in, out], of fan-in scale; what is added to the residual stream is 1 / sqrt(2 depth) of it."""
    width, hidden = spec.width, HIDDEN * spec.width
    added = (2 * max(spec.depth, 1)) ** -0.5
    drawn = {CHARACTERS: Drawn((spec.vocabulary, width), 1.0), POSITIONS: Drawn((spec.context, width), 0.1)}
    norms, biases = {"final": width}, {"output": spec.vocabulary}
    for i in range(spec.depth):
        drawn[f"attention{i}/qkv"] = of_fan_in(width, 3 * width)
        drawn[f"attention{i}/out"] = of_fan_in(width, width, scale=added)
        drawn[f"in{i}/kernel"] = of_fan_in(width, hidden)
        drawn[f"out{i}/kernel"] = of_fan_in(hidden, width, scale=added)
        norms |= {f"attention{i}": width, f"dense{i}": width}
        biases |= {f"in{i}": hidden, f"out{i}": width}
    drawn |= {"output/kernel": of_fan_in(width, spec.vocabulary, scale=OUTPUT_SCALE)}
    return initial.draw(key, drawn) | layers.biases(biases) | layers.norms(norms)


def logits(spec: TransformerSpec, w: Weights, text: jax.Array) -> jax.Array:
    """Scores [B, T, vocabulary] of each next character, given it and all before it: text [B, T] int32, T <= context."""
    length = text.shape[1]
    hot = jax.nn.one_hot(text, spec.vocabulary, dtype=precision(w))
    x = hot @ w[CHARACTERS] + w[POSITIONS][None, :length]
    for i in range(spec.depth):
        x = x + _attention(spec, w, f"attention{i}", normalized(w, f"attention{i}", x))
        x = x + linear(w, f"out{i}", jax.nn.gelu(linear(w, f"in{i}", normalized(w, f"dense{i}", x))))
    return linear(w, "output", normalized(w, "final", x))


def _attention(spec: TransformerSpec, w: Weights, name: str, x: jax.Array) -> jax.Array:
    """Causal self-attention: [B, T, width] -> the same."""
    batch, length, _ = x.shape
    size = spec.width // spec.heads
    qkv = (x @ w[f"{name}/qkv"]).reshape(batch, length, 3, spec.heads, size)
    queries, keys, values = jnp.moveaxis(qkv, 2, 0)
    scores = jnp.einsum("bthd,bshd->bhts", queries, keys) * size**-0.5
    past = jnp.tril(jnp.ones((length, length), bool))[None, None]
    weights = jax.nn.softmax(jnp.where(past, scores, -1e9), axis=-1)
    seen = jnp.einsum("bhts,bshd->bthd", weights, values).reshape(batch, length, spec.width)
    return seen @ w[f"{name}/out"]
