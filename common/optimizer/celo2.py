"""The learned update rule of Celo2 (arXiv 2602.19142): factored features, no step, an output of root mean square one.

For each number of a tensor a perceptron has 30 inputs, of which 15 for tensors of rank below two. Its first output is the
direction d; its other two are parameters of the published thetas that are not used:

    w <- w - rate * d / rms(d)

    inputs                                 number  tensors
    g, clip(g, -0.1, 0.1), w                    3  all
    momentum                                    3  all            (decays .9 .99 .999)
    rms (average of g^2)                        1  all            (decay .95)
    momentum * rsqrt(rms + 1e-8)                3  all
    rsqrt(rms + 1e-8)                           1  all
    g * preconditioner                          3  all            (factored second moments, decays .9 .99 .999)
    g * rsqrt(rms + 1e-8)                       1  all
    row averages, column averages               6  rank >= 2
    rsqrt(row + 1e-8), rsqrt(column + 1e-8)     6  rank >= 2
    momentum * preconditioner                   3  rank >= 2

Inputs and the output are divided by their root mean square over the last two axes. Gradients are clipped to +-1000. With
`orthogonalize`, five Newton-Schulz iterations make the direction of a matrix nearly orthogonal before it is normalized;
the paper then updates tensors of rank below two, and embeddings, with AdamW.

With two hidden layers of 8 units theta has 347 numbers. The state has four numbers for each parameter of a tensor of rank
two and more, and three for each row and column; seven for each parameter of other tensors.
"""

import jax
import jax.numpy as jnp
import optax

from common.optimizer.factored import Averages, Decays, preconditioner, start, updated
from common.optimizer.perceptron import Shapes, normalized, outputs, random, shapes, split
from common.optimizer.tensor_rule import Rule, per_tensor

MOMENTUM_DECAYS, RMS_DECAYS, FACTORED_DECAYS = (0.9, 0.99, 0.999), (0.95,), (0.9, 0.99, 0.999)
FLOOR = 1e-9  # of mean squares that numbers are divided by
LARGEST = 1000.0  # absolute value that gradients are clipped to; the release clips infinite ones too
HIDDEN = (8, 8)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def segments(hidden: tuple[int, ...] = HIDDEN) -> Shapes:
    """Shapes of theta's tensors, in order: kernel and bias of each layer."""
    return shapes(30, hidden, 3)


def init(key: jax.Array, hidden: tuple[int, ...] = HIDDEN) -> jax.Array:
    """Random theta [P] float32."""
    return random(key, segments(hidden))


def transform(
    theta: jax.Array, hidden: tuple[int, ...] = HIDDEN, rate: float = 0.001, *, orthogonalize: bool = False
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with parameters theta [P]; each step changes a matrix by `rate` in root mean square."""

    def update(g: jax.Array, w: jax.Array, averages: Averages, step: jax.Array) -> tuple[jax.Array, Averages]:
        decays = Decays(*(jnp.asarray(d, g.dtype) for d in (MOMENTUM_DECAYS, RMS_DECAYS, FACTORED_DECAYS)))
        averages = updated(averages, g, decays)
        axes = tuple(range(1, g.ndim + 1))[-2:]
        groups = [normalized(x, axes, FLOOR) for x in features(g, w, averages)]
        direction = outputs(split(theta.astype(g.dtype), segments(hidden)), groups)[:1]
        if orthogonalize and g.ndim > 1:
            direction = orthogonal(direction)
        return -rate * normalized(direction, axes, FLOOR)[0], averages

    return per_tensor(Rule(start, update, LARGEST))


def features(g: jax.Array, w: jax.Array, averages: Averages) -> list[jax.Array]:
    """The inputs, as groups [k, ...]."""
    m, rms, rows, columns = averages
    g, w = g[None], w[None]
    inverse, scale = jax.lax.rsqrt(rms + 1e-8), preconditioner(averages, g.shape[1:])
    groups = [g, jnp.clip(g, -0.1, 0.1), w, m, rms, m * inverse, inverse, g * scale, g * inverse]
    if columns is None:
        return groups
    return [*groups, rows, columns, jax.lax.rsqrt(rows + 1e-8), jax.lax.rsqrt(columns + 1e-8), m * scale]


def orthogonal(x: jax.Array) -> jax.Array:
    """Matrices [..., n, m] near x with singular values near one (Newton-Schulz, as in Muon)."""
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else jnp.swapaxes(x, -2, -1)
    x = x / (jnp.sqrt(jnp.sum(x * x, axis=(-2, -1), keepdims=True) + 1e-30) + 1e-8)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        square = x @ jnp.swapaxes(x, -2, -1)
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else jnp.swapaxes(x, -2, -1)
