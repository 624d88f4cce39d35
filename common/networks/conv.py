"""Convolutional classifiers of the inner problems, as matrix products that stay fast inside a JAX loop.

Activations are channels first, batch last, `[C, H, W, b]`: the long axis is contiguous and no layer needs a transpose.
The batch is processed in pieces of b images, so that the output of one layer is still in the cache when the next layer
reads it. XLA's CPU convolution is avoided: inside `lax.scan` it is 40 to 60 times slower than outside.

`loss` supports `jax.grad`, and `jax.jvp` and `jax.linearize` of its gradient. It has a custom reverse rule, so `jax.jvp`
of `loss` itself raises TypeError. Computations use the precision of the parameters.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from common.networks import winograd
from common.networks.initial import TRUNCATED_NORMAL_STD

Weights = dict[str, jax.Array]

# Size of the widest layer's columns for one piece of the batch, so that they stay in the L2 cache (1 MiB on the machine
# of this measurement): 8 images of the paper's network, 32 of the quickstart's. Its gradient takes 1.37 times as long
# with 16 images as with 8, and as long with 4, which is worse for small layers.
PIECE_BYTES = 3 * 2**18
MIN_PIECE = 4
KEPT = "activation"  # name of what the derivative of the gradient reads: each layer's output and its cotangent


class ConvSpec(NamedTuple):
    """Shape of a classifier: 3x3 'SAME' convolutions with ReLU, global average pool, linear layer.

    The paper's: `ConvSpec((32, 32, 3), (32, 32, 32), (2, 1, 1), 10)`, 19,722 parameters.
    """

    image_shape: tuple[int, int, int]  # (H, W, C)
    units: tuple[int, ...]
    strides: tuple[int, ...]
    classes: int


def init(spec: ConvSpec, key: jax.Array) -> Weights:
    """Inner-parameters: kernels `[3, 3, C, O]`, truncated normal of standard deviation 1/sqrt(fan_in); biases zero."""
    fans = (spec.image_shape[-1], *spec.units)
    shapes = {f"conv{i}": (3, 3, c, o) for i, (c, o) in enumerate(pairwise(fans))} | {
        "linear": (fans[-1], spec.classes)
    }
    boundaries = np.cumsum([np.prod(shape) for shape in shapes.values()])
    draw = jax.random.truncated_normal(key, -2, 2, (int(boundaries[-1]),))  # one: each takes a second to compile
    w: Weights = {}
    for (layer, shape), part in zip(shapes.items(), jnp.split(draw, boundaries[:-1])):
        std = np.float32(1 / (TRUNCATED_NORMAL_STD * np.sqrt(np.prod(shape[:-1]))))
        w |= {f"{layer}/kernel": part.reshape(shape) * std, f"{layer}/bias": jnp.zeros(shape[-1])}
    return w


def logits(spec: ConvSpec, w: Weights, images: jax.Array) -> jax.Array:
    """Class scores `[B, classes]` of uint8 images `[B, H*W*C]` (rows in HWC order, scaled to [-1, 1] here)."""
    scores = lax.map(partial(_scores, spec, w), _pieces(spec, images))
    return jnp.moveaxis(scores, 1, 2).reshape(images.shape[0], spec.classes)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def loss(spec: ConvSpec, w: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy over the batch; `images` as for `logits`, `labels` integers `[B]`."""
    return _mean_over_pieces(spec, _summed_loss, w, images, labels)


def _loss_and_gradient(spec, w, images, labels):
    # Each piece is differentiated separately, so that only its gradient is kept.
    policy = jax.checkpoint_policies.save_only_these_names(KEPT)  # what `jax.linearize` keeps of the gradient
    gradient = jax.value_and_grad(_summed_loss, argnums=1)
    gradient = jax.checkpoint(gradient, policy=policy, prevent_cse=False, static_argnums=(0,))
    return _mean_over_pieces(spec, gradient, w, images, labels)


def _scale_gradient(spec, gradient, cotangent):
    return jax.tree.map(lambda g: g * cotangent, gradient), None, None


loss.defvjp(_loss_and_gradient, _scale_gradient)


def _mean_over_pieces(spec, function, w, images, labels):
    images, labels = _pieces(spec, images), labels.reshape(-1, _piece(spec, labels.shape[0]))
    shapes = jax.eval_shape(partial(function, spec), w, images[0], labels[0])

    def add(total, piece):
        return jax.tree.map(jnp.add, total, function(spec, w, *piece)), None

    total, _ = lax.scan(add, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), (images, labels))
    return jax.tree.map(lambda x: x / labels.size, total)


def _pieces(spec: ConvSpec, images: jax.Array) -> jax.Array:
    """`[B, H*W*C]` -> `[B / b, b, H*W*C]`."""
    return images.reshape(-1, _piece(spec, images.shape[0]), images.shape[1])


def _piece(spec: ConvSpec, batch: int) -> int:
    """b: the largest divisor of B whose columns fit PIECE_BYTES; B if there is none."""
    h, wd, _ = spec.image_shape
    widest = 1
    for c, stride in zip(spec.units, spec.strides):
        h, wd = _same(h, stride)[0], _same(wd, stride)[0]
        widest = max(widest, 3 * c * h * wd)
    limit = max(PIECE_BYTES // (4 * widest), MIN_PIECE)
    return max((b for b in range(MIN_PIECE, limit + 1) if batch % b == 0), default=batch)


def _summed_loss(spec: ConvSpec, w: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    scores = jax.nn.log_softmax(_scores(spec, w, images), axis=0)
    return -jnp.sum(jnp.where(jnp.arange(spec.classes)[:, None] == labels[None, :], scores, 0))


def _scores(spec: ConvSpec, w: Weights, images: jax.Array) -> jax.Array:
    """`[b, H*W*C]` -> `[classes, b]`."""
    h, wd, c = spec.image_shape
    x = images.T.reshape(h, wd, c, -1).transpose(2, 0, 1, 3)
    x = x.astype(w["linear/bias"].dtype) / 127.5 - 1
    tiled = False  # whether the rows of x are in tile order; the average over the pixels ignores it
    for i, stride in enumerate(spec.strides):
        direct = _split_convolution if stride == 1 and i > 0 else partial(_column_convolution, stride)
        y = (winograd.convolve if tiled else direct)(x, w[f"conv{i}/kernel"])
        if spec.strides[i + 1 :]:
            tile = spec.strides[i + 1] == 1 and winograd.suits(y.shape[1], *spec.units[i : i + 2])
            if tile != tiled:
                y = winograd.to_tiles(y) if tile else winograd.from_tiles(y)
            tiled = tile
        x = _relu(y + w[f"conv{i}/bias"][:, None, None, None])
    return product(w["linear/kernel"], x.mean((1, 2))) + w["linear/bias"][:, None]


def convolved(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x` [C, H, W, b] convolved with `kernel` [3, 3, C, O], 'SAME': [O, H', W', b]."""
    return (_split_convolution if stride == 1 else partial(_column_convolution, stride))(x, kernel)


def _split_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1: shifts by rows, one `[3O, 3C] @ [3C, HWb]` product, shifts by columns.

    Copies 3C + 3O numbers per pixel, where nine shifts before the product copy 9C for the same operations.
    """
    c, h, wd, b = x.shape
    o = kernel.shape[-1]
    rows = jnp.concatenate([winograd.shift(x, 1, 1), x, winograd.shift(x, 1, -1)]).reshape(3 * c, h * wd * b)
    y = product(kernel.transpose(0, 2, 1, 3).reshape(3 * c, 3 * o), rows)
    left, middle, right = jnp.split(y.reshape(3 * o, h, wd, b), 3)
    return winograd.shift(left, 2, 1) + middle + winograd.shift(right, 2, -1)


def _column_convolution(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Any stride: nine shifts, then one `[O, 9C] @ [9C, H'W'b]` product; best for small C or stride > 1."""
    c, h, wd, b = x.shape
    (oh, ph), (ow, pw) = _same(h, stride), _same(wd, stride)
    x = jnp.pad(x, ((0, 0), ph, pw, (0, 0)))
    last = ((oh - 1) * stride + 1, (ow - 1) * stride + 1)
    taps = [
        lax.slice(x, (0, i, j, 0), (c, i + last[0], j + last[1], b), (1, stride, stride, 1))
        for i in range(3)
        for j in range(3)
    ]
    columns = jnp.concatenate(taps).reshape(9 * c, oh * ow * b)
    return product(kernel.reshape(9 * c, -1), columns).reshape(-1, oh, ow, b)


@jax.custom_jvp
def _rectified(y: jax.Array) -> jax.Array:
    return jnp.maximum(y, 0)


@_rectified.defjvp
def _rectified_derivative(primals, tangents):
    x = checkpoint_name(jnp.maximum(primals[0], 0), KEPT)
    return x, jnp.where(x > 0, tangents[0], 0)


@jax.custom_vjp
def _relu(y: jax.Array) -> jax.Array:
    """max(y, 0), whose derivatives read its output: that and the cotangent of y are all that a layer keeps."""
    return _rectified(y)


def _relu_forward(y):
    x = _rectified(y)
    return x, x


_relu.defvjp(_relu_forward, lambda x, dx: (checkpoint_name(jnp.where(x > 0, dx, 0), KEPT),))


@jax.custom_vjp
def product(kernel: jax.Array, columns: jax.Array) -> jax.Array:
    """`kernel.T @ columns`. JAX's reverse rule yields transposed products, which are half as fast in the jvp."""
    return lax.dot_general(kernel, columns, (((0,), (0,)), ((), ())))


def _product_backward(residuals, dy):
    kernel, columns = residuals
    return lax.dot_general(columns, dy, (((1,), (1,)), ((), ()))), kernel @ dy


product.defvjp(lambda k, x: (lax.dot_general(k, x, (((0,), (0,)), ((), ()))), (k, x)), _product_backward)


def _same(size: int, stride: int) -> tuple[int, tuple[int, int]]:
    """Output size and padding of a 3-wide 'SAME' window."""
    out = -(-size // stride)
    total = max((out - 1) * stride + 3 - size, 0)
    return out, (total // 2, total - total // 2)
