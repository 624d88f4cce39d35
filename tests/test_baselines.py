"""Baselines: their grids, and that a rate means what it says."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.config import EvaluationConfig
from workers.evaluation import baselines

GRID = EvaluationConfig()


def test_the_grid_is_the_papers():
    rates = baselines.rates(GRID)
    assert len(rates) == 11 and rates[0] == 1e-4 and rates[-1] == 10
    np.testing.assert_allclose(np.diff(np.log10(rates)), 0.5, atol=1e-5)


def test_the_finer_grid_has_the_geometric_means_between():
    rates, between = baselines.rates(GRID), baselines.rates_between(GRID)
    np.testing.assert_allclose(between, np.sqrt(np.multiply(rates[1:], rates[:-1])), rtol=1e-5)


@pytest.mark.parametrize("name", baselines.TUNED)
def test_a_rate_scales_the_step(name):
    gradient, w = {"w": jnp.array([2.0, -0.5])}, {"w": jnp.zeros(2)}
    first = [step(name, rate, gradient, w) for rate in (0.001, 0.01)]
    np.testing.assert_allclose(first[1], 10 * first[0], rtol=1e-5)
    expected = {"adam": [-0.001, 0.001], "rmsprop": [-0.001 * 10**0.5, 0.001 * 10**0.5], "sgd": [-0.002, 0.0005]}
    np.testing.assert_allclose(first[0], expected[name], rtol=1e-4)


def step(name, rate, gradient, w):
    optimizer = baselines.family(name).transform(jnp.asarray(baselines.theta(name, rate)))
    return optimizer.update(gradient, optimizer.init(w), w)[0]["w"]


def test_sgd_has_momentum():
    gradient, w = {"w": jnp.ones(1)}, {"w": jnp.zeros(1)}
    optimizer = baselines.family("sgd").transform(jnp.asarray(baselines.theta("sgd", 0.1)))
    _, state = optimizer.update(gradient, optimizer.init(w), w)
    np.testing.assert_allclose(optimizer.update(gradient, state, w)[0]["w"], [-0.19], rtol=1e-6)
