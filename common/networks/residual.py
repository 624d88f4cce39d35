"""Residual convolutional classifiers with layer normalisation, in the batch-last layout of `common.networks.conv`.

Blocks normalise first (He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027), over the channels of each
pixel, so that no statistics of the batch are needed. `loss` supports `jax.grad`, and `jax.jvp` of its gradient.
"""

from itertools import pairwise
from typing import NamedTuple

import jax

from common.networks import conv, initial, layers
from common.networks.initial import OUTPUT_SCALE, of_fan_in
from common.networks.layers import Weights, cross_entropy, linear, precision


class ResidualSpec(NamedTuple):
    """Shape of a classifier: a 3x3 convolution, a block of two with each further entry, average pool, linear layer."""

    image_shape: tuple[int, int, int]  # (H, W, C)
    units: tuple[int, ...]
    strides: tuple[int, ...]  # of the first convolution, and of the first one of each block
    classes: int

    def projects(self, block: int) -> bool:
        """Whether the input of a block (1, 2, ...) has another shape than its output."""
        return self.strides[block] != 1 or self.units[block - 1] != self.units[block]


def init(spec: ResidualSpec, key: jax.Array) -> Weights:
    """Inner-parameters: kernels [3, 3, C, O] or [C, O], of fan-in scale; no biases but those of the normalisations."""
    blocks, norms = len(spec.units) - 1, {"final": spec.units[-1]}
    drawn = {"first0/kernel": of_fan_in(3, 3, spec.image_shape[-1], spec.units[0])}
    for i, (fan_in, units) in enumerate(pairwise(spec.units), 1):
        drawn[f"first{i}/kernel"] = of_fan_in(3, 3, fan_in, units)
        drawn[f"second{i}/kernel"] = of_fan_in(3, 3, units, units, scale=blocks**-0.5)
        if spec.projects(i):
            drawn[f"shortcut{i}/kernel"] = of_fan_in(fan_in, units)
        norms |= {f"first{i}": fan_in, f"second{i}": units}
    drawn |= {"output/kernel": of_fan_in(spec.units[-1], spec.classes, scale=OUTPUT_SCALE)}
    return initial.draw(key, drawn) | layers.norms(norms) | layers.biases({"output": spec.classes})


def logits(spec: ResidualSpec, w: Weights, images: jax.Array) -> jax.Array:
    """Class scores [B, classes] of uint8 images [B, H * W * C] (rows in HWC order, scaled to [-1, 1] here)."""
    h, wd, c = spec.image_shape
    pixels = images.T.reshape(h, wd, c, -1).transpose(2, 0, 1, 3).astype(precision(w)) / 127.5 - 1
    x = _convolved(spec, w, 0, pixels)
    for i in range(1, len(spec.units)):
        x = _block(spec, w, i, x)
    return linear(w, "output", _activated(w, "final", x).mean((1, 2)).T)


def loss(spec: ResidualSpec, w: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy over the batch; `images` as for `logits`, `labels` integers [B]."""
    return cross_entropy(logits(spec, w, images), labels)


def _block(spec: ResidualSpec, w: Weights, i: int, x: jax.Array) -> jax.Array:
    """[C, H, W, B] -> [O, H', W', B]."""
    stride, y = spec.strides[i], _activated(w, f"first{i}", x)
    if spec.projects(i):
        strided = y[:, ::stride, ::stride]
        x = conv.product(w[f"shortcut{i}/kernel"], strided.reshape(y.shape[0], -1)).reshape(-1, *strided.shape[1:])
    y = _activated(w, f"second{i}", _convolved(spec, w, i, y))
    return x + conv.convolved(1, y, w[f"second{i}/kernel"])


def _convolved(spec: ResidualSpec, w: Weights, i: int, x: jax.Array) -> jax.Array:
    """The first convolution, i = 0, or the first one of block i."""
    return conv.convolved(spec.strides[i], x, w[f"first{i}/kernel"])


def _activated(w: Weights, name: str, x: jax.Array) -> jax.Array:
    """ReLU of the normalised channels of each pixel, [C, H, W, B]."""
    x = x - x.mean(0, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(0, keepdims=True) + layers.EPSILON)
    scale, shift = (w[f"{name}/{part}"][:, None, None, None] for part in ("scale", "shift"))
    return jax.nn.relu(x * scale + shift)
