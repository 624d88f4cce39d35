"""The per-parameter MLP with factored second moments of Metz et al. 2022 (arXiv 2203.11860): small_fc_lopt.

For each number of a tensor a perceptron has 39 inputs and two outputs, a direction d and a log rate m:

    w <- w - 0.001 d exp(0.001 m)

    inputs                                 number  divided by their root mean square over the tensor
    g, w                                        2  yes
    momentum                                    3  yes   (decays .9 .99 .999)
    rms (average of g^2)                        1  yes   (decay .999)
    momentum * rsqrt(rms + 1e-6)                3  yes
    rsqrt(rms + 1e-6)                           1  yes
    g * preconditioner                          3  yes   (factored second moments, decays .9 .99 .999)
    row averages, column averages               6  yes
    rsqrt(row + 1e-8), rsqrt(column + 1e-8)     6  yes
    momentum * preconditioner                   3  yes
    tanh(t / x - 1)                            11  no    (x = 1 3 10 30 100 300 1000 3000 10000 30000 100000)

Tensors of rank below two have unfactored second moments, which stand in the place of rows and of columns. The decays are
learned: theta holds offsets o first, and a decay is 1 - (1 - d) exp(10 o), those of second moments clipped to [0, 1].

With two hidden layers of 4 units theta has 7 + 190 numbers. The state has four numbers for each parameter of a tensor of
rank two and more, and three for each row and column; seven for each parameter of other tensors.
"""

import jax
import jax.numpy as jnp
import optax

from common.optimizer.factored import Averages, Decays, preconditioner, start, updated
from common.optimizer.perceptron import Shapes, normalized, outputs, random, shapes, split
from common.optimizer.tensor_rule import Rule, per_tensor

MOMENTUM_DECAYS, RMS_DECAYS, FACTORED_DECAYS = (0.9, 0.99, 0.999), (0.999,), (0.9, 0.99, 0.999)
TIMES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, 100000.0)
SCALE = 0.001  # of both outputs
LARGEST = 1e8  # larger finite gradients count as this: their normalizers would overflow in float32
HIDDEN = (4, 4)
INPUTS = 28 + len(TIMES)


def segments(hidden: tuple[int, ...] = HIDDEN) -> Shapes:
    """Shapes of theta's tensors, in order: offsets of the three kinds of decays, then kernel and bias of each layer."""
    return ((3,), (1,), (3,), *shapes(INPUTS, hidden, 2))


def init(key: jax.Array, hidden: tuple[int, ...] = HIDDEN) -> jax.Array:
    """Random theta [P] float32; the offsets of the decays are zero."""
    return jnp.concatenate([jnp.zeros(7, jnp.float32), random(key, segments(hidden)[3:])])


def transform(
    theta: jax.Array, hidden: tuple[int, ...] = HIDDEN, total_steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with parameters theta [P]. `total_steps` as in `per_tensor`."""

    def update(g: jax.Array, w: jax.Array, averages: Averages, step: jax.Array) -> tuple[jax.Array, Averages]:
        tensors = split(theta.astype(g.dtype), segments(hidden))
        averages = updated(averages, g, decays(*tensors[:3]))
        axes = tuple(range(1, g.ndim + 1))
        groups = [normalized(x, axes, 1e-5) for x in features(g, w, averages)]
        time = jnp.tanh(step.astype(g.dtype) / jnp.asarray(TIMES, g.dtype) - 1)
        direction, magnitude = outputs(tensors[3:], groups, time)
        return -SCALE * direction * jnp.exp(SCALE * magnitude), averages

    return per_tensor(Rule(start, update, LARGEST), total_steps)


def decays(momentum: jax.Array, rms: jax.Array, factored: jax.Array) -> Decays:
    """The decays from their offsets."""

    def moved(initial: tuple[float, ...], offset: jax.Array) -> jax.Array:
        return 1 - (1 - jnp.asarray(initial, offset.dtype)) * jnp.exp(10 * offset)

    return Decays(
        moved(MOMENTUM_DECAYS, momentum),
        jnp.clip(moved(RMS_DECAYS, rms), 0.0, 1.0),
        jnp.clip(moved(FACTORED_DECAYS, factored), 0.0, 1.0),
    )


def features(g: jax.Array, w: jax.Array, averages: Averages) -> list[jax.Array]:
    """The 28 inputs that differ between the numbers of a tensor, as groups [k, ...]."""
    m, rms, rows, columns = averages
    inverse = jax.lax.rsqrt(rms + 1e-6)
    scale = preconditioner(averages, g.shape)
    # For ranks below two the momentum is divided by a root of another floor than the gradient, as in the release.
    precise = scale if columns is not None else jax.lax.rsqrt(rows + 1e-6)
    columns = rows if columns is None else columns
    return [
        *(g[None], w[None], m, rms, m * inverse, inverse, g[None] * scale, rows, columns),
        *(jax.lax.rsqrt(rows + 1e-8), jax.lax.rsqrt(columns + 1e-8), m * precise),
    ]
