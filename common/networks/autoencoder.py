"""Fully connected autoencoders of the inner problems, which reproduce images from a code of few numbers."""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from common.networks import initial, layers
from common.networks.initial import of_fan_in
from common.networks.layers import Weights, linear, precision

OUTPUT_SCALE = 0.1  # of the last kernel, so that training starts at the loss of grey images, the mean square of a pixel


class AutoencoderSpec(NamedTuple):
    """Shape of an autoencoder: dense layers with ReLU down to the code and, in reverse, up to the image."""

    inputs: int  # H * W * C
    units: tuple[int, ...]  # of the encoder; the last one is the length of the code, which has no ReLU

    def widths(self) -> tuple[int, ...]:
        """Of the image, of each layer, and of the image."""
        return (self.inputs, *self.units, *self.units[-2::-1], self.inputs)


def init(spec: AutoencoderSpec, key: jax.Array) -> Weights:
    """Inner-parameters: kernels [in, out], of fan-in scale; biases zero."""
    widths, last = spec.widths(), 2 * len(spec.units) - 1
    scales = [OUTPUT_SCALE if i == last else 1.0 for i in range(last + 1)]
    sizes = zip(pairwise(widths), scales)
    drawn = {f"dense{i}/kernel": of_fan_in(*pair, scale=scale) for i, (pair, scale) in enumerate(sizes)}
    return initial.draw(key, drawn) | layers.biases({f"dense{i}": width for i, width in enumerate(widths[1:])})


def loss(spec: AutoencoderSpec, w: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean squared error of a pixel in [-1, 1], over the batch: uint8 images [B, H * W * C]; the labels are not used."""
    pixels = images.astype(precision(w)) / 127.5 - 1
    return jnp.mean((reproduced(spec, w, pixels) - pixels) ** 2)


def reproduced(spec: AutoencoderSpec, w: Weights, pixels: jax.Array) -> jax.Array:
    """Images from the codes of images, pixels [B, H * W * C] in [-1, 1]."""
    x, code, last = pixels, len(spec.units) - 1, 2 * len(spec.units) - 1
    for i in range(last + 1):
        x = linear(w, f"dense{i}", x)
        x = x if i in (code, last) else jax.nn.relu(x)
    return x
