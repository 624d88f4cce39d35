"""Baselines: the rate scales the step, and SGD has momentum."""

import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
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


USERS = """
import sys
import optax


def held(rate):
    return optax.inject_hyperparams(optax.adam)(learning_rate=rate)


def by_value(rate):
    return optax.adam(float(rate))


def good(rate):
    return optax.adam(rate)
"""


def test_users_optimizer_that_tuning_cannot_change_is_rejected(tmp_path, monkeypatch):
    (tmp_path / "users_own.py").write_text(USERS)
    (tmp_path / "users_script.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    assert baselines.family("users_own:good").size == 1
    with pytest.raises(UserError, match="keeps the learning rate in its state"):
        baselines.family("users_own:held")
    with pytest.raises(UserError, match="must not depend on the rate's value"):
        baselines.family("users_own:by_value")
    with pytest.raises(UserError, match=r"users_script fails when it is imported \(SystemExit: 0, users_script.py:2"):
        baselines.family("users_script:make")
