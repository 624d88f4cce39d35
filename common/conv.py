"""The convolutional classifiers of the inner problems, as wide matrix products that stay fast inside a JAX loop.

Activations are channels first, batch last, `[C, H, W, B]`: the long axis is contiguous, no layer needs a transpose,
and a 3x3 convolution is one product `W [O, 9C] @ columns [9C, H'W'B]`. (XLA's own CPU convolution is 40 to 60 times
slower inside `lax.scan` than outside of it.) float32 in, float32 out; float64 parameters compute in float64.

`loss` is meant for `jax.grad` and for `jax.jvp(jax.grad(loss), ...)`; its convolution has a reverse rule of its own, so
`jax.jvp` of `loss` itself raises a TypeError.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class ConvSpec(NamedTuple):
    """Shape of a classifier: 3x3 'SAME' convolutions with ReLU, global average pool, linear layer.

    The paper's: `ConvSpec((32, 32, 3), (32, 32, 32), (2, 1, 1), 10)`, 19,722 parameters.
    """

    image_shape: tuple[int, int, int]  # (H, W, C)
    units: tuple[int, ...]
    strides: tuple[int, ...]
    classes: int


def init(spec: ConvSpec, key: jax.Array) -> dict[str, jax.Array]:
    """Inner-parameters: kernels `[O, 3, 3, C]`, truncated normal of std 1/sqrt(fan_in); biases zero."""
    w = {}
    fans = (spec.image_shape[-1], *spec.units)
    for i, (k, c, o) in enumerate(zip(jax.random.split(key, len(spec.units)), fans, spec.units)):
        w[f"conv{i}_kernel"] = _truncated_normal(k, (o, 3, 3, c), 9 * c)
        w[f"conv{i}_bias"] = jnp.zeros(o)
    w["linear_kernel"] = _truncated_normal(jax.random.fold_in(key, len(spec.units)), (spec.classes, fans[-1]), fans[-1])
    w["linear_bias"] = jnp.zeros(spec.classes)
    return w


def logits(spec: ConvSpec, w: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """Class scores `[B, classes]` of uint8 images `[B, H*W*C]` (rows in HWC order, scaled to [-1, 1] here)."""
    return _scores(spec, w, images).T


def loss(spec: ConvSpec, w: dict[str, jax.Array], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy over the batch; `labels` are integers `[B]`."""
    scores = jax.nn.log_softmax(_scores(spec, w, images), axis=0)
    hot = jnp.arange(spec.classes)[:, None] == labels[None, :]
    return -jnp.sum(jnp.where(hot, scores, 0)) / labels.shape[0]


def _scores(spec: ConvSpec, w: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    h, wd, c = spec.image_shape
    x = images.T.reshape(h, wd, c, -1).transpose(2, 0, 1, 3)
    x = x.astype(w["linear_bias"].dtype) / 127.5 - 1
    for i, stride in enumerate(spec.strides):
        first = i == 0
        y = _conv(stride, first, x, w[f"conv{i}_kernel"]) + w[f"conv{i}_bias"][:, None, None, None]
        x = jax.nn.relu(y)
    return w["linear_kernel"] @ x.mean((1, 2)) + w["linear_bias"][:, None]


def _truncated_normal(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    # 0.8796...: standard deviation of a standard normal cut at two.
    return jax.random.truncated_normal(key, -2, 2, shape) / (np.float32(0.87962566) * np.sqrt(np.float32(fan_in)))


def _same(size: int, stride: int) -> tuple[int, tuple[int, int]]:
    """Output size and padding of a 3-wide 'SAME' window."""
    out = -(-size // stride)
    total = max((out - 1) * stride + 3 - size, 0)
    return out, (total // 2, total - total // 2)


def _columns(stride: int, x: jax.Array) -> jax.Array:
    """`[C, H, W, B]` -> `[9C, H'W'B]`, rows ordered (row shift, column shift, channel)."""
    c, h, wd, b = x.shape
    (oh, ph), (ow, pw) = _same(h, stride), _same(wd, stride)
    x = jnp.pad(x, ((0, 0), ph, pw, (0, 0)))
    taps = [
        jax.lax.slice(
            x, (0, i, j, 0), (c, i + (oh - 1) * stride + 1, j + (ow - 1) * stride + 1, b), (1, stride, stride, 1)
        )
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(taps).reshape(9 * c, oh * ow * b)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(stride: int, first: bool, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _conv_forward(stride, first, x, kernel)[0]


def _conv_forward(stride: int, first: bool, x: jax.Array, kernel: jax.Array):
    columns = _columns(stride, x)
    (oh, _), (ow, _) = _same(x.shape[1], stride), _same(x.shape[2], stride)
    y = kernel.reshape(kernel.shape[0], -1) @ columns
    return y.reshape(-1, oh, ow, x.shape[3]), (columns, kernel, x)


def _conv_backward(stride: int, first: bool, residuals, dy: jax.Array):
    columns, kernel, x = residuals
    o, _, _, c = kernel.shape
    dkernel = (dy.reshape(o, -1) @ columns.T).reshape(kernel.shape)
    if first:  # nobody asks for the gradient of an image
        return jnp.zeros_like(x), dkernel
    # Transposed convolution: spread dy by the stride, then a stride-1 convolution with the kernel turned around.
    edges = [(2 - _same(n, stride)[1][0], n + _same(n, stride)[1][0]) for n in x.shape[1:3]]
    spread = [(lo, hi - ((m - 1) * stride + 1), stride - 1) for (lo, hi), m in zip(edges, dy.shape[1:3])]
    dy = jax.lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    taps = [dy[:, i : i + x.shape[1], j : j + x.shape[2]] for i in range(3) for j in range(3)]
    turned = kernel[:, ::-1, ::-1, :].transpose(3, 1, 2, 0).reshape(c, -1)
    return (turned @ jnp.concatenate(taps).reshape(9 * o, -1)).reshape(x.shape), dkernel


_conv.defvjp(_conv_forward, _conv_backward)
