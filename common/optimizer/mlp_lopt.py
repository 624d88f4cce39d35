"""The per-parameter MLP of google/learned_optimization (`MLPLOpt`): gradient, weight, six momenta and the step.

For each number of a tensor a perceptron has 19 inputs and two outputs, a direction d and a log rate m:

    w <- w - 0.001 d exp(0.001 m)

    inputs                          number  divided by their root mean square over the tensor
    g                                    1  yes
    w                                    1  yes
    momentum                             6  yes   (decays .1 .5 .9 .99 .999 .9999)
    tanh(t / x - 1)                     11  no    (x = 1 3 10 30 100 300 1000 3000 10000 30000 100000)

With two hidden layers of 32 units theta has 1,762 numbers; the state has six for each parameter.
"""

import jax
import jax.numpy as jnp
import optax

from common.optimizer.perceptron import Shapes, normalized, outputs, random, shapes, split
from common.optimizer.tensor_rule import Rule, average, per_tensor

MOMENTUM_DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIMES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, 100000.0)
SCALE = 0.001  # of both outputs
LARGEST = 1e8  # larger finite gradients count as this: their normalizers would overflow in float32
HIDDEN = (32, 32)


def segments(hidden: tuple[int, ...] = HIDDEN) -> Shapes:
    """Shapes of theta's tensors, in order: kernel and bias of each layer."""
    return shapes(2 + len(MOMENTUM_DECAYS) + len(TIMES), hidden, 2)


def init(key: jax.Array, hidden: tuple[int, ...] = HIDDEN) -> jax.Array:
    """Random theta [P] float32."""
    return random(key, segments(hidden))


def transform(
    theta: jax.Array, hidden: tuple[int, ...] = HIDDEN, total_steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with parameters theta [P]; for a leaf of shape [...] the state has one leaf [6, ...].

    `total_steps` is as in `per_tensor`.
    """

    def start(zeros: jax.Array) -> jax.Array:
        return jnp.broadcast_to(zeros[None], (len(MOMENTUM_DECAYS), *zeros.shape))

    def update(g: jax.Array, w: jax.Array, momentum: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        momentum = average(momentum, g[None], jnp.asarray(MOMENTUM_DECAYS, g.dtype))
        inputs = normalized(jnp.concatenate([g[None], w[None], momentum]), tuple(range(1, g.ndim + 1)), 1e-5)
        time = jnp.tanh(step.astype(g.dtype) / jnp.asarray(TIMES, g.dtype) - 1)
        direction, magnitude = outputs(split(theta.astype(g.dtype), segments(hidden)), [inputs], time)
        return -SCALE * direction * jnp.exp(SCALE * magnitude), momentum

    return per_tensor(Rule(start, update, LARGEST), total_steps)
