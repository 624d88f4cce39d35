"""Hand-designed optimizers whose hyper-parameters are theta: the baselines, and the learned rates of Figures 2 and 3.

A positive hyper-parameter is represented by its natural logarithm, so that it stays positive when theta is perturbed
or updated. Only `sgd` holds its two directly, because Figure 2 and the closed forms are written in them.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import optax

# Added to Adam's second moment under the root: a weight that never had a gradient (a dead unit) would make the reverse
# pass 0 * inf. Its root is a hundredth of Adam's own epsilon, too small to change an update in float32.
EPSILON_ROOT = 1e-20

DECAYS_AND_PENALTIES = ("exponential_decay", "linear_decay", "l1", "l2")
ADAM8 = ("learning_rate", "beta1", "beta2", "epsilon", *DECAYS_AND_PENALTIES)
RMSPROP7 = ("learning_rate", "decay", "epsilon", *DECAYS_AND_PENALTIES)
MOMENTUM6 = ("learning_rate", "momentum", *DECAYS_AND_PENALTIES)


def in_float32(make: Callable[[jax.Array], optax.GradientTransformation]) -> Callable:
    """Computes updates and states in float32 or wider; updates have the dtype of their weights."""

    def wider(x: Any) -> Any:
        dtype = jnp.promote_types(jnp.result_type(x), jnp.float32)
        return jax.ShapeDtypeStruct(x.shape, dtype) if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x, dtype)

    def wide(tree: Any) -> Any:
        return jax.tree.map(wider, tree)

    @wraps(make)
    def made(theta: jax.Array) -> optax.GradientTransformation:
        inner = make(theta)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            result, state = inner.update(wide(updates), state, wide(params))
            return jax.tree.map(lambda u, g: u.astype(jnp.result_type(g)), result, updates), state

        return optax.GradientTransformation(lambda params: inner.init(wide(params)), update)

    return made


@in_float32
def adam(theta: jax.Array) -> optax.GradientTransformation:
    """theta = [log learning rate]."""
    return optax.adam(jnp.exp(theta[0]), eps_root=EPSILON_ROOT)


@in_float32
def rmsprop(theta: jax.Array) -> optax.GradientTransformation:
    """theta = [log learning rate]; decay 0.9, as in optax."""
    return optax.rmsprop(jnp.exp(theta[0]))


@in_float32
def sgd(theta: jax.Array) -> optax.GradientTransformation:
    """theta = [learning rate, momentum]."""
    return optax.chain(optax.trace(decay=theta[1]), optax.scale(-theta[0]))


@in_float32
def adam8(theta: jax.Array) -> optax.GradientTransformation:
    """Adam with regularisation and learning rate decay (section 4.4), theta [8] in the order of `ADAM8`.

    theta holds log learning rate, log(1 - beta1), log(1 - beta2), log epsilon, and the logarithms of the decay and
    penalty coefficients.
    """
    rate, miss1, miss2, epsilon, *others = jnp.exp(theta)
    rule = optax.scale_by_adam(b1=1.0 - miss1, b2=1.0 - miss2, eps=epsilon, eps_root=EPSILON_ROOT)
    return regularised(rule, rate, others)


@in_float32
def rmsprop7(theta: jax.Array) -> optax.GradientTransformation:
    """RMSProp with the same regularisation and decay (appendix E), theta [7] in the order of `RMSPROP7`.

    theta holds log learning rate, log(1 - decay), log epsilon, which is added under the root, and the others as in
    `adam8`.
    """
    rate, miss, epsilon, *others = jnp.exp(theta)
    return regularised(optax.scale_by_rms(decay=1.0 - miss, eps=epsilon), rate, others)


@in_float32
def momentum6(theta: jax.Array) -> optax.GradientTransformation:
    """SGD with momentum, with the same regularisation and decay (appendix E), theta [6] in the order of `MOMENTUM6`.

    theta holds log learning rate, log(1 - momentum), and the others as in `adam8`.
    """
    rate, miss, *others = jnp.exp(theta)
    return regularised(optax.trace(decay=1.0 - miss), rate, others)


def regularised(
    rule: optax.GradientTransformation, rate: jax.Array, others: Sequence[jax.Array]
) -> optax.GradientTransformation:
    """`rule` with penalties on the weights and a decaying rate.

    The rate at step t is rate * exp(-exponential_decay t) * max(0, 1 - linear_decay t); l1 and l2 are coefficients of
    |w| and w^2 / 2, added to the inner loss.

    Args:
      others: exponential_decay, linear_decay, l1 and l2.
    """
    exponential, linear, l1, l2 = others

    def schedule(step: jax.Array) -> jax.Array:
        return -rate * jnp.exp(-exponential * step) * jnp.maximum(0.0, 1.0 - linear * step)

    def penalty(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda g, w: g + l1 * jnp.sign(w) + l2 * w, updates, params)

    return optax.chain(optax.stateless(penalty), rule, optax.scale_by_schedule(schedule))
