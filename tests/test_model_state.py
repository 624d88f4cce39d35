"""Model state carried by the unroll, against a plain loop that JAX differentiates, in float64."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.config import Config, CurriculumConfig, EstimatorConfig, OptimizerConfig, TaskConfig
from common.optimizer import make_family
from common.task import TaskFamily
from workers.evaluation.evaluator import accuracy, measure
from workers.slots import Slots
from workers.trajectory import Sampler
from workers.unroll import OuterLoss, Problem, Unroll

STEPS = 7  # of segments of 3: two boundaries and a rest


def loss(w, batch, state):
    """Its gradient depends on the state, and the next state on w, on the state and on the batch."""
    shown = jnp.tanh(w["w"]) * batch
    kept = 0.8 * jnp.sin(state["mean"]) + 0.2 * shown**2
    return jnp.mean((shown - state["mean"]) ** 2), {"mean": kept, "count": state["count"] + 1}


def task():
    return TaskFamily(
        sample=lambda random, split: {"x": random.normal(size=3)},
        init=lambda key: {"w": jax.random.normal(key, (3,))},
        batch=lambda data, key, split: data["x"] + 0.1 * jax.random.normal(key, (3,)),
        loss=loss,
        accuracy=lambda w, batch, state: jnp.mean(state["mean"] > 0),
        state=lambda key: {"mean": jax.random.uniform(key, (3,)), "count": jnp.int32(0)},
    )


def plain(theta, problem, key, outer_loss, family):
    """The mean outer loss of `STEPS` steps from the start, by the definition, and the last state."""
    own, key_of = task(), lambda n: jax.random.fold_in(problem.key, n)
    w, state = own.init(key), own.state(key)
    optimizer = family.transform(theta).init(w)
    (_, state), gradient = jax.value_and_grad(loss, has_aux=True)(w, own.batch(problem.data, key_of(0), "train"), state)

    def step(carry, t):
        w, optimizer, gradient, state = carry
        updates, optimizer = family.transform(theta).update(gradient, optimizer, w)
        w, batch = optax.apply_updates(w, updates), own.batch(problem.data, key_of(2 * t + 2), "train")
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(w, batch, state)
        if outer_loss.outer_batches:
            keys = [jax.random.fold_in(key_of(2 * t + 1), k) for k in range(outer_loss.outer_batches)]
            fresh = [loss(w, own.batch(problem.data, k, outer_loss.objective), state)[0] for k in keys]
            value = sum(fresh) / len(fresh)
        return (w, optimizer, gradient, state), value

    (*_, state), losses = jax.lax.scan(step, (w, optimizer, gradient, state), jnp.arange(STEPS))
    return jnp.mean(losses), state


@pytest.mark.heavy
@pytest.mark.parametrize("family, outer_loss", [("sgd", OuterLoss()), ("mlp", OuterLoss("valid", 2))])
def test_gradient_through_model_state_equals_the_plain_loop(family, outer_loss):
    with jax.enable_x64(True):
        family = make_family(OptimizerConfig(family=family, hidden=4, learning_rate=0.3))
        theta = 3 * jnp.asarray(family.init(jax.random.key(5)), jnp.float64)
        problem = Problem(task().sample(np.random.default_rng(0), "outer_train"), jax.random.key(1))
        unroll = Unroll(task(), family, outer_loss, segment=3)
        losses, gradient, state = unroll.losses_and_grad(
            theta, problem, unroll.start(problem, jax.random.key(2)), STEPS
        )
        reference = jax.jit(
            jax.value_and_grad(lambda t: plain(t, problem, jax.random.key(2), outer_loss, family), has_aux=True)
        )
        (mean, last), expected = reference(theta)
        assert losses.mean() == pytest.approx(float(mean), rel=1e-12)
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
        np.testing.assert_allclose(state.model["mean"], last["mean"], rtol=1e-12)
        assert int(state.model["count"]) == STEPS + 1 and np.any(gradient)
        repeated, after = unroll.forward(theta, problem, unroll.start(problem, jax.random.key(2)), STEPS)
        np.testing.assert_allclose(repeated, losses, rtol=1e-12)
        np.testing.assert_array_equal(after.model["count"], state.model["count"])


@cache
def sampler(es):
    config = replace(
        Config(),
        task=TaskConfig(family="quadratic", inner_steps=12),
        optimizer=OptimizerConfig(family="sgd", learning_rate=0.1),
        estimator=EstimatorConfig(es=es, use="merged" if es == "truncated" else "es", sigma=0.1, pairs=1),
        curriculum=CurriculumConfig(start=3, end=3, jitter=0.0, stagger=False),
    )
    family = make_family(config.optimizer)
    return Sampler(config, task(), Unroll(task(), family, OuterLoss(), 3), "w0", family.size)


@pytest.mark.parametrize("es", ["truncated", "persistent"])
def test_trajectories_carry_the_state_of_each_branch(es):
    own, theta = sampler(es), np.array([0.1, 0.9], np.float32)
    _, trajectory = own.advance(own.begin(0, 1), theta, 0, 1, with_rp=False)
    plus, minus = trajectory.plus.model, trajectory.minus.model
    assert int(plus["count"]) == int(minus["count"]) == 4
    assert np.array_equal(plus["mean"], minus["mean"]) == (es == "truncated")


def test_trajectories_with_model_state_resume_bit_for_bit():
    own, theta = sampler("persistent"), np.array([0.1, 0.9], np.float32)
    _, trajectory = own.advance(own.begin(0, 1), theta, 0, 1, with_rp=False)
    kept, restored = (Slots(own.begin, own.config.estimator) for _ in range(2))
    kept.put(trajectory)
    sequence = restored.load(kept.dump(1))
    [resumed] = restored.of(0)
    advanced = [own.advance(t, theta, 0, sequence + 1, with_rp=False) for t in (trajectory, resumed)]
    (one, after), (other, after_resumed) = advanced
    np.testing.assert_array_equal(one.es, other.es)
    jax.tree.map(np.testing.assert_array_equal, (after.plus, after.minus), (after_resumed.plus, after_resumed.minus))


def test_measure_reads_the_model_state():
    own, w = task(), {"w": jnp.zeros(3)}
    data, state = {"x": jnp.ones(3)}, {"mean": jnp.array([2.0, 2.0, -1.0]), "count": jnp.int32(1)}
    np.testing.assert_allclose(measure(own, 10.0, (w, state), data, jax.random.key(0)), 3.0, rtol=1e-6)  # tanh(0) = 0
    assert float(accuracy(own, (w, state), data, jax.random.key(0))) == pytest.approx(2 / 3)
