"""The paper's per-parameter MLP with one more input: the momentum of a matrix, made nearly orthogonal as by Muon.

All other inputs of a number depend on its own gradients only. With this one the rule sees the matrix as a whole, and can
learn when to follow Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). For each number of a tensor a
perceptron has 24 inputs and two outputs, a direction d and a log rate m:

    w <- w - 0.001 d exp(0.001 m)

    inputs                          number  divided by their root mean square over the tensor
    g                                    1  yes
    momentum * rsqrt(rms + 1e-6)         3  yes   (decays .9 .99 .999, no debiasing)
    w                                    1  yes
    momentum                             3  yes
    rms (average of g^2)                 3  yes
    rsqrt(rms + 1e-6)                    3  yes
    orthogonal(momentum of decay .9)     1  yes   (zero for tensors of rank below two)
    tanh(t / x - 1)                      9  no    (x = 3 10 30 100 300 1000 3000 10000 300000)

The rows of the matrix are all axes but the last: a kernel [3, 3, C, O] is a matrix [9 C, O]. With one hidden layer of 32
units theta has 866 numbers; the state has six for each parameter.
"""

import jax
import jax.numpy as jnp
import optax

from common.optimizer.perceptron import Shapes, outputs, random, shapes, split
from common.optimizer.tensor_rule import Rule, average, per_tensor

DECAYS = (0.9, 0.99, 0.999)
TIMES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 300000.0)
SCALE = 0.001  # of both outputs
LARGEST = 1e7  # larger finite gradients count as this: squares of their squares would overflow in float32
HIDDEN = (32,)
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.7750, 2.0315), 5  # as Muon


def segments(hidden: tuple[int, ...] = HIDDEN) -> Shapes:
    """Shapes of theta's tensors, in order: kernel and bias of each layer."""
    return shapes(3 + 4 * len(DECAYS) + len(TIMES), hidden, 2)


def init(key: jax.Array, hidden: tuple[int, ...] = HIDDEN) -> jax.Array:
    """Random theta [P] float32."""
    return random(key, segments(hidden))


def transform(
    theta: jax.Array, hidden: tuple[int, ...] = HIDDEN, total_steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with parameters theta [P]; for a leaf of shape [...] the state has two leaves [3, ...].

    `total_steps` is as in `per_tensor`.
    """

    def start(zeros: jax.Array) -> tuple[jax.Array, jax.Array]:
        def of_each() -> jax.Array:  # called twice: leaves that are one array could not be donated
            return jnp.broadcast_to(zeros[None], (len(DECAYS), *zeros.shape))

        return of_each(), of_each()

    def update(
        g: jax.Array, w: jax.Array, averages: tuple[jax.Array, jax.Array], step: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        decays = jnp.asarray(DECAYS, g.dtype)
        momentum, rms = average(averages[0], g[None], decays), average(averages[1], (g * g)[None], decays)
        inputs = features(g, w, momentum, rms)
        # As in mlp: an input's scale is one number, which multiplies its row of the kernel instead.
        scale = jax.lax.rsqrt(1e-5 + jnp.mean(inputs * inputs, axis=tuple(range(1, inputs.ndim))))
        kernel, *others = split(theta.astype(g.dtype), segments(hidden))
        kernel = jnp.concatenate([kernel[: len(scale)] * scale[:, None], kernel[len(scale) :]])
        time = jnp.tanh(step.astype(g.dtype) / jnp.asarray(TIMES, g.dtype) - 1)
        direction, magnitude = outputs([kernel, *others], [inputs], time)
        return -SCALE * direction * jnp.exp(SCALE * magnitude), (momentum, rms)

    return per_tensor(Rule(start, update, LARGEST), total_steps)


def features(g: jax.Array, w: jax.Array, momentum: jax.Array, rms: jax.Array) -> jax.Array:
    """The inputs [15, ...] that differ between numbers of a tensor."""
    inverse = jax.lax.rsqrt(rms + 1e-6)
    matrix = orthogonal(momentum[0]) if g.ndim > 1 else jnp.zeros_like(g)
    return jnp.concatenate([g[None], momentum * inverse, w[None], momentum, rms, inverse, matrix[None]])


def orthogonal(x: jax.Array) -> jax.Array:
    """The matrix near x [..., m] whose singular values are near one, by Newton-Schulz; zero for zero.

    An iteration multiplies the matrix by a polynomial of its Gram matrix. All polynomials are of the first Gram matrix
    and commute, so they are multiplied with each other, on the matrix's smaller side, and with the matrix once.
    """
    rows = x.reshape(-1, x.shape[-1])
    rows = rows / (jax.lax.stop_gradient(jnp.max(jnp.abs(rows), initial=0.0)) + 1e-10)  # small squares would underflow
    tall = rows.shape[0] > rows.shape[1]
    gram = rows.T @ rows if tall else rows @ rows.T
    size = 1 / (jnp.trace(gram) + 1e-6)
    gram, total = gram * size, jnp.sqrt(size) * jnp.eye(len(gram), dtype=x.dtype)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        step = a * jnp.eye(len(gram), dtype=x.dtype) + b * gram + c * gram @ gram
        gram, total = gram @ step @ step, total @ step
    return (rows @ total if tall else total @ rows).reshape(x.shape)
