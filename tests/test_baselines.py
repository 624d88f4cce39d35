"""Baselines: the rate scales the step, and SGD has momentum."""

import jax.numpy as jnp
import numpy as np
import pytest

from workers.evaluation import baselines
from workers.evaluation.tuning import TUNED, Setting


@pytest.mark.parametrize("name", TUNED)
def test_theta_scales_the_first_step_by_the_rate(name):
    gradient, w = {"w": jnp.array([2.0, -0.5])}, {"w": jnp.zeros(2)}
    first = [step(name, rate, gradient, w) for rate in (0.001, 0.01)]
    np.testing.assert_allclose(first[1], 10 * first[0], rtol=1e-5)
    expected = {"adam": [-0.001, 0.001], "rmsprop": [-0.001 * 10**0.5, 0.001 * 10**0.5], "sgd": [-0.002, 0.0005]}
    np.testing.assert_allclose(first[0], expected[name], rtol=1e-4)


def step(name, rate, gradient, w):
    optimizer = baselines.family(name).transform(jnp.asarray(baselines.theta(name, Setting(rate))))
    return optimizer.update(gradient, optimizer.init(w), w)[0]["w"]


def test_sgd_accumulates_momentum():
    gradient, w = {"w": jnp.ones(1)}, {"w": jnp.zeros(1)}
    optimizer = baselines.family("sgd").transform(jnp.asarray(baselines.theta("sgd", Setting(0.1))))
    _, state = optimizer.update(gradient, optimizer.init(w), w)
    np.testing.assert_allclose(optimizer.update(gradient, state, w)[0]["w"], [-0.19], rtol=1e-6)
