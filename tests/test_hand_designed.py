"""The hand-designed families equal optax's own optimizers, and Adam + regularisation + decay its definition."""

from math import exp, log

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.config import OptimizerConfig
from common.optimizer import hand_designed, make_family

OFF = -np.inf  # the logarithm of a coefficient that is zero
PLAIN8 = (log(0.05), log(0.1), log(0.001), log(1e-8), OFF, OFF, OFF, OFF)


def gradient(w):
    """Of a quadratic whose third coordinate never has a gradient: a dead unit."""
    return {"a": jnp.array([1.0, 30.0, 0.0]) * w["a"], "b": w["b"] - 1.0}


def path(transform, steps=6, gradient=gradient):
    """w after each step, [steps, 5]."""
    w = {"a": jnp.array([1.0, -0.5, 2.0]), "b": jnp.array([[0.1, 3.0]])}
    state, rows = jax.jit(transform.init)(w), []

    @jax.jit
    def step(w, state):
        updates, state = transform.update(gradient(w), state, w)
        return optax.apply_updates(w, updates), state

    for _ in range(steps):
        w, state = step(w, state)
        rows.append(np.concatenate([w["a"], w["b"].ravel()]))
    assert step._cache_size() == 1
    return np.array(rows)


@pytest.mark.parametrize(
    "transform, same",
    [
        (hand_designed.adam(jnp.array([log(0.05)])), optax.adam(0.05)),
        (hand_designed.rmsprop(jnp.array([log(0.05)])), optax.rmsprop(0.05)),
        (hand_designed.sgd(jnp.array([0.05, 0.9])), optax.sgd(0.05, momentum=0.9)),
        (hand_designed.sgd(jnp.array([0.05, 0.0])), optax.sgd(0.05)),
        (hand_designed.adam8(jnp.array(PLAIN8)), optax.adam(0.05)),
        (
            hand_designed.adam8(jnp.array([*PLAIN8[:1], log(0.5), log(0.1), log(0.3), *PLAIN8[4:]])),
            optax.adam(0.05, 0.5, 0.9, 0.3),
        ),
        (hand_designed.rmsprop7(jnp.array([log(0.05), log(0.2), log(0.3), *4 * [OFF]])), optax.rmsprop(0.05, 0.8, 0.3)),
        (hand_designed.momentum6(jnp.array([log(0.05), log(0.3), *4 * [OFF]])), optax.sgd(0.05, momentum=0.7)),
    ],
)
def test_hand_designed_optimizers_equal_optax(transform, same):
    np.testing.assert_allclose(path(transform), path(same), rtol=2e-5, atol=1e-6)


def with_last_four(exponential=OFF, linear=OFF, l1=OFF, l2=OFF):
    return hand_designed.adam8(jnp.array([*PLAIN8[:4], exponential, linear, l1, l2]))


def test_adam8_decays_the_rate_exponentially():
    want = optax.adam(lambda t: 0.05 * jnp.exp(-0.3 * t))
    np.testing.assert_allclose(path(with_last_four(exponential=log(0.3))), path(want), rtol=2e-5)


def test_adam8_decays_the_rate_linearly_to_zero():
    got = path(with_last_four(linear=log(0.3)))
    want = optax.adam(lambda t: jnp.maximum(0.0, 0.05 * (1 - 0.3 * t)))
    np.testing.assert_allclose(got, path(want), rtol=2e-5)
    assert np.array_equal(got[3], got[5]) and not np.array_equal(got[2], got[3])


def test_adam8_adds_penalties_to_the_loss():
    penalised = lambda w: jax.tree.map(lambda g, x: g + 0.3 * jnp.sign(x) + 0.7 * x, gradient(w), w)  # noqa: E731
    got = path(with_last_four(l1=log(0.3), l2=log(0.7)))
    np.testing.assert_allclose(got, path(optax.adam(0.05), gradient=penalised), rtol=2e-5)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd", "adam8", "rmsprop7", "momentum6"])
def test_family_init_has_the_configured_values(name):
    family = make_family(OptimizerConfig(family=name, learning_rate=0.02, momentum=0.7))
    theta = family.init(jax.random.key(0))
    assert theta.dtype == jnp.float32 and theta.shape == (family.size,) == family.segments.shape
    values = np.asarray(theta) if name == "sgd" else np.exp(theta)
    searched = {
        "adam8": [0.02, 0.1, 0.001, *5 * [1e-8]],
        "rmsprop7": [0.02, 0.1, *5 * [1e-8]],
        "momentum6": [0.02, 0.1, *4 * [1e-8]],
    }
    want = {"sgd": [0.02, 0.7], **searched}.get(name, [0.02])
    np.testing.assert_allclose(values, want, rtol=1e-5)
    momentum, rms = optax.sgd(0.02, 0.9), optax.rmsprop(0.02)
    same = {"sgd": optax.sgd(0.02, 0.7), "momentum6": momentum, "rmsprop": rms, "rmsprop7": rms}.get(
        name, optax.adam(0.02)
    )
    alive = [0, 1, 3, 4]  # a weight decay of 1e-8 already moves a unit without gradient
    got, want = path(family.transform(theta)), path(same)
    np.testing.assert_allclose(got[:, alive], want[:, alive], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "sgd", pytest.param("adam8", marks=pytest.mark.heavy)])
def test_gradient_of_theta_with_a_dead_unit_is_finite(name):
    family = make_family(OptimizerConfig(family=name, learning_rate=0.05))

    @jax.jit
    @jax.value_and_grad
    def last_loss(theta):
        w = {"a": jnp.array([1.0, -0.5, 2.0]), "b": jnp.array([[0.1, 3.0]])}
        state = family.transform(theta).init(w)
        for _ in range(3):
            updates, state = family.transform(theta).update(gradient(w), state, w)
            w = optax.apply_updates(w, updates)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(w))

    theta = family.init(jax.random.key(0))
    theta = theta.at[4:].set(OFF) if name == "adam8" else theta
    slope = last_loss(theta)[1]
    assert np.all(np.isfinite(slope))
    values = [float(last_loss(theta.at[0].add(d))[0]) for d in (5e-3, -5e-3)]
    assert slope[0] == pytest.approx((values[0] - values[1]) / 1e-2, rel=0.02)


def test_adam8_order_is_the_documented_one():
    assert hand_designed.ADAM8 == (
        "learning_rate",
        "beta1",
        "beta2",
        "epsilon",
        "exponential_decay",
        "linear_decay",
        "l1",
        "l2",
    )
    assert exp(PLAIN8[0]) == pytest.approx(0.05)
