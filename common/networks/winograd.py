"""3x3 convolution of stride 1 with half the multiplications: Winograd's F(4, 3) along the rows of an image.

Four rows of the output are computed from the values of two polynomials, kernel and input, at six points: six products
of `[3O, C]` by `[C, H/4*W*b]` instead of twelve, three taps for each row. The kernel's columns are shifts of the output,
so every transform is a sum of whole contiguous rows. The two-dimensional F(2x2, 3x3) has 11 % fewer multiplications,
but writes 4 numbers per pixel and channel before its products instead of 1.5, and its products are smaller.

Images are `[C, H, W, b]` with their rows in *tile order*: rows 0, 4, 8, ..., then rows 1, 5, 9, ..., so that each of the
four is contiguous in every channel. What works pixel by pixel may ignore the order.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROWS = 4  # of the output in a tile; its input has two more
# And infinity. Layers of 32 channels round 1.6 to 1.8 times as much as nine taps, with 0, 1, -1, 2, -2 2.3 to 2.7 times.
POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)
# Below, the transforms take about as long as the multiplications that they save.
MIN_CHANNELS, MIN_HEIGHT = 16, 8


def _others(point: float) -> list[float]:
    return [q for q in POINTS if q != point]


# Evaluation of the kernel and interpolation, with the divisors in the kernel's part: [6, 3], [6, 6], [4, 6].
KERNEL = np.array([[p**j / np.prod([p - q for q in _others(p)]) for j in range(3)] for p in POINTS] + [[0, 0, 1]])
INPUT = np.array([[*np.poly(_others(p))[::-1], 0] for p in POINTS] + [np.poly(POINTS)[::-1]])
OUTPUT = np.array([[p**i for p in POINTS] + [i == ROWS - 1] for i in range(ROWS)], float)


def suits(height: int, channels: int, units: int) -> bool:
    """Whether `convolve` accepts images of this height, and is faster than nine taps for layers of this shape."""
    return height % ROWS == 0 and height >= MIN_HEIGHT and min(channels, units) >= MIN_CHANNELS


def to_tiles(x: jax.Array) -> jax.Array:
    """`[C, H, W, b]` with its rows in tile order; H is a multiple of ROWS."""
    c, h, w, b = x.shape
    return x.reshape(c, h // ROWS, ROWS, w, b).swapaxes(1, 2).reshape(x.shape)


def from_tiles(x: jax.Array) -> jax.Array:
    """The inverse of `to_tiles`."""
    c, h, w, b = x.shape
    return x.reshape(c, ROWS, h // ROWS, w, b).swapaxes(1, 2).reshape(x.shape)


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """'SAME' convolution of `[C, H, W, b]` with `[3, 3, C, O]`; `[O, H, W, b]`. Rows in tile order."""
    return _convolved(x, kernel)


def _convolved(x, kernel):
    points = _at_points(x)
    y = _products(_kernel_at_points(kernel), points, (1, 1)).reshape(len(INPUT), -1, *points.shape[2:])
    left, middle, right = jnp.split(y, 3, axis=1)
    return _joined(_combined(OUTPUT, shift(left, 3, 1) + middle + shift(right, 3, -1)))


def _forward(x, kernel):
    return _convolved(x, kernel), (x, kernel)


def _backward(residuals, dy):
    x, kernel = residuals
    dy = jnp.stack(_combined(OUTPUT.T, _rows(dy)))
    dy = jnp.concatenate([shift(dy, 3, -1), dy, shift(dy, 3, 1)], axis=1)
    points = _at_points(x)
    dx = _products(_kernel_at_points(kernel), dy, (2, 1)).reshape(points.shape)
    dkernel = jnp.stack(_combined(KERNEL.T, _products(points, dy, (2, 2)))).reshape(3, -1, 3, kernel.shape[-1])
    return _from_points(dx), dkernel.swapaxes(1, 2)


convolve.defvjp(_forward, _backward)


def _products(a: jax.Array, b: jax.Array, contracted: tuple[int, int]) -> jax.Array:
    """One matrix product per point. Args: contracted: an axis of each, where pixels are all on axis 2."""
    a, b = (x.reshape(*x.shape[:2], -1) for x in (a, b))
    return lax.dot_general(a, b, (((contracted[0],), (contracted[1],)), ((0,), (0,))))


def _kernel_at_points(kernel: jax.Array) -> jax.Array:
    """`[3, 3, C, O]` -> `[6, C, 3O]`."""
    c, o = kernel.shape[2:]
    return jnp.stack(_combined(KERNEL, kernel.swapaxes(1, 2).reshape(3, c, 3 * o)))


def _at_points(x: jax.Array) -> jax.Array:
    """`[C, H, W, b]` -> `[6, C, H/4, W, b]`: the rows of each tile, the one before it, and the one after it, combined."""
    rows = _rows(x)
    return jnp.stack(_combined(INPUT, [shift(rows[-1], 1, 1), *rows, shift(rows[0], 1, -1)]))


def _from_points(points: jax.Array) -> jax.Array:
    """The transpose of `_at_points`."""
    before, *rows, after = _combined(INPUT.T, points)
    rows[-1] += shift(before, 1, -1)
    rows[0] += shift(after, 1, 1)
    return _joined(rows)


def _rows(x: jax.Array) -> list[jax.Array]:
    """`[C, H, W, b]` -> `[C, H/4, W, b]` for each of the four rows of a tile."""
    return list(jnp.moveaxis(x.reshape(x.shape[0], ROWS, -1, *x.shape[2:]), 1, 0))


def _joined(rows: list[jax.Array]) -> jax.Array:
    """The inverse of `_rows`."""
    return jnp.concatenate(rows, axis=1)


def _combined(matrix: np.ndarray, parts: jax.Array | list[jax.Array]) -> list[jax.Array]:
    """The product of a matrix of constants with parts, written out: XLA fuses it into what reads and writes them."""
    return [sum(float(c) * part for c, part in zip(row, parts) if c) for row in matrix]


def shift(x: jax.Array, axis: int, by: int) -> jax.Array:
    """`x` shifted along `axis`, zero where nothing is shifted in."""
    edges = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)
