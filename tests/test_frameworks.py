"""Models of flax and equinox as tasks: dropout, batch normalization, and leaves that are no arrays.

They need the extra `notebook`:  pip install -e '.[test,notebook]' && pytest -m extras tests/test_frameworks.py
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.config import Config, OptimizerConfig, TaskConfig
from common.optimizer import make_family
from common.own_task import dry_step
from common.own_task.task import Task
from workers.evaluation.evaluator import accuracy, measure
from workers.unroll import OuterLoss, Problem, Unroll

pytestmark = pytest.mark.extras

RANDOM = np.random.default_rng(0)
Y = RANDOM.integers(3, size=200).astype(np.int32)
X = (np.eye(3)[Y] @ RANDOM.normal(size=(3, 5)) * 2 + RANDOM.normal(size=(200, 5))).astype(np.float32)
CONFIG = replace(Config(), task=TaskConfig(family="mine:task", batch_size=16))


@pytest.fixture(autouse=True)
def rank_promotion():
    """JAX's default: the layers of these libraries rely on it."""
    with jax.numpy_rank_promotion("allow"):
        yield


def cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def flax_task():
    """Dense layers with batch normalization and dropout."""
    import flax.linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(8)(x))
            return nn.Dense(3)(nn.Dropout(0.1, deterministic=not train)(nn.relu(x)))

    network = Network()

    def init(key):
        variables = network.init(key, X[:1], train=False)
        return variables["params"], variables["batch_stats"]

    def loss(params, batch, key, state):
        train = key is not None
        variables, rngs = {"params": params, "batch_stats": state}, {"dropout": key} if train else None
        logits, changed = network.apply(variables, batch["x"], train=train, rngs=rngs, mutable=["batch_stats"])
        return cross_entropy(logits, batch["y"]), changed["batch_stats"]

    def accuracy(params, batch, state):
        logits = network.apply({"params": params, "batch_stats": state}, batch["x"], train=False)
        return jnp.mean(jnp.argmax(logits, axis=1) == batch["y"])

    return Task(init, loss, {"x": X, "y": Y}, accuracy=accuracy)


def equinox_task():
    """An MLP with dropout; its activation function and its rate are leaves of the model."""
    import equinox as eqx

    class Network(eqx.Module):
        mlp: eqx.nn.MLP
        dropout: eqx.nn.Dropout

    def init(key):
        return Network(eqx.nn.MLP(5, 3, 8, 1, key=key), eqx.nn.Dropout(0.1))

    def logits(model, x, key=None):
        return jax.vmap(model.mlp)(model.dropout(x, key=key, inference=key is None))

    def loss(model, batch, key):
        return cross_entropy(logits(model, batch["x"], key), batch["y"])

    def accuracy(model, batch):
        return jnp.mean(jnp.argmax(logits(model, batch["x"]), axis=1) == batch["y"])

    return Task(init, loss, {"x": X, "y": Y}, accuracy=accuracy)


@pytest.mark.parametrize("make", [flax_task, equinox_task])
def test_model_of_a_framework_trains(make: Any) -> None:
    task = make().family(CONFIG)
    assert "200 rows, half of which train" in dry_step.check(
        dry_step.Subject("mine:task", task, 16), np.random.default_rng(0)
    )
    family = make_family(OptimizerConfig(family="adam", learning_rate=0.02))
    unroll, theta = Unroll(task, family, OuterLoss("valid", 1), 25), family.init(jax.random.key(0))
    problem = Problem(jax.device_put(task.sample(np.random.default_rng(0), "outer_train")), jax.random.key(0))
    state = unroll.start(problem, jax.random.key(1))
    key = jax.random.key(2)
    before = measure(task, 10.0, (state.w, state.model), problem.data, key)
    losses, gradient, after = unroll.losses_and_grad(theta, problem, state, 150)
    end = measure(task, 10.0, (after.w, after.model), problem.data, key)
    assert np.all(np.isfinite(gradient)) and np.any(gradient)
    assert losses[-20:].mean() < 0.6 * losses[:3].mean()
    assert float(end[2]) < float(before[2])
    assert float(accuracy(task, (after.w, after.model), problem.data, key)) > 0.75
