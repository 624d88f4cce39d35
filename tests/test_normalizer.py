"""Normalized outer losses: what they are divided by, and that the inner problem is trained as before."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tasks

from common.config import EstimatorConfig, TaskConfig
from common.configfile import from_dict
from common.errors import UserError
from common.optimizer import make_family
from common.task import TaskFamily, above_bound, open_task
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import UnrollJob, encode
from workers.normalizer import Normalizer
from workers.trajectory import Sampler
from workers.unroll import OuterLoss, Unroll

HIGH = OuterLoss(clamp=1e6)
KEYS = jax.random.key(3), jax.random.key(4)
THETA = np.array([0.3, 0.5], np.float32)
GROWING = np.array([4.0, 0.5], np.float32)  # losses grow


def normalized(normalizer, name="quadratic"):
    return dataclasses.replace(tasks.TASKS[name], normalizer=normalizer)


def problem(normalizer, name="quadratic", seed=0):
    data = jax.device_put(tasks.task(name).sample(np.random.default_rng(seed), "outer_train"))
    return Normalizer(normalized(normalizer, name), tasks.task(name)).problem(data, *KEYS)


def unrolled(normalizer, name="quadratic", outer=HIGH, theta=THETA):
    """Losses, gradient and final state of seven steps."""
    family = make_family(tasks.config().optimizer)
    made = Unroll(tasks.task(name), family, outer, 4)
    inner = problem(normalizer, name)
    state = made.start(inner, KEYS[1])
    return made.losses_and_grad(jnp.asarray(theta), inner, state, 7)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name, outer", [("quadratic", OuterLoss("train", 0, 1e6)), ("mlp", OuterLoss("valid", 2, 1e6))]
)
def test_normalizer_divides_losses_and_gradient_only(name, outer):
    losses, gradient, state = unrolled("none", name, outer)
    divided, slope, same = unrolled(4.0, name, outer)
    np.testing.assert_allclose(divided, losses / 4, rtol=1e-5)
    np.testing.assert_allclose(slope, gradient / 4, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.w, same.w)


@pytest.mark.heavy
def test_clamp_applies_to_the_normalized_loss():
    raw = unrolled("none", theta=GROWING)[0]
    scale = float(raw[3])
    clamped, _, state = unrolled(scale, outer=OuterLoss(clamp=1.0), theta=GROWING)
    np.testing.assert_allclose(clamped, np.minimum(raw / scale, 1), rtol=1e-5)
    assert clamped[2] < 1 and clamped[4] == 1
    other, _, same = unrolled("none", outer=OuterLoss(clamp=scale), theta=GROWING)  # the inner problem's own clamp
    np.testing.assert_allclose(clamped, other / scale, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.w, same.w)


def test_initial_normalizer_is_the_first_loss():
    inner = problem("initial")
    w = tasks.task("quadratic").init(KEYS[1])
    assert float(inner.scale) == pytest.approx(float(tasks.task("quadratic").loss(w, inner.data)), rel=1e-6)
    assert float(inner.scale) != float(problem("initial", seed=1).scale)


def test_classes_normalizer_is_the_loss_of_a_guess():
    assert float(problem("classes", "mlp").scale) == pytest.approx(math.log(3))
    assert problem("none", "mlp").scale is None and float(problem(2.5, "mlp").scale) == 2.5


def test_classes_normalizer_without_classes_is_rejected():
    with pytest.raises(UserError, match=r"is for classifiers, and task\.family = .quadratic."):
        open_task(dataclasses.replace(tasks.config(), task=normalized("classes")))


@pytest.mark.parametrize("loss", [0.0, np.inf, np.nan])
def test_initial_loss_that_cannot_divide_is_rejected(loss):
    family = tasks.task("quadratic")._replace(loss=lambda w, batch: jnp.float32(loss) + 0 * w["w"].sum())
    with pytest.raises(UserError, match="divides by the loss at the initial weights, which is"):
        Normalizer(normalized("initial"), family).problem(family.sample(np.random.default_rng(0), ""), *KEYS)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_normalizer_of_zero_or_less_is_rejected(value):
    with pytest.raises(UserError, match=rf"task.normalizer = {value}: must be more than 0 \(losses are divided by it"):
        TaskConfig(normalizer=value)


@pytest.mark.heavy
def test_sample_of_a_normalized_family_has_normalized_losses():
    advances = []
    for normalizer in ("none", 2.0):
        config = tasks.config(estimator=EstimatorConfig(sigma=0.1, clamp=1e6))
        config = dataclasses.replace(config, task=normalized(normalizer))
        family = make_family(config.optimizer)
        unroll = Unroll(tasks.task("quadratic"), family, OuterLoss.of(config.estimator), 4)
        draw = Sampler(config, unroll.task, unroll, "w0", family.size)
        advances.append(draw.advance(draw.begin(0, 1), THETA, 0, 0, with_rp=True)[0])
    plain, divided = advances
    assert divided.pair.plus.loss == pytest.approx(plain.pair.plus.loss / 2, rel=1e-5)
    np.testing.assert_allclose(divided.es, plain.es / 2, rtol=1e-4)
    np.testing.assert_allclose(divided.pair.rp, plain.pair.rp / 2, rtol=1e-4)


@pytest.mark.heavy
def test_evaluation_reports_losses_that_are_not_normalized():
    def curves(normalizer):
        tree = {
            "task": {"family": "quadratic", "inner_steps": 20, "normalizer": normalizer},
            "optimizer": {"family": "sgd"},
            "curriculum": {"start": 5, "end": 5},
            "estimator": {"clamp": 1e6},
        }
        return Evaluator(from_dict(tree)).run(UnrollJob("learned", 1000, theta=encode(THETA))).curves

    for plain, divided in zip(curves("none"), curves("initial")):
        np.testing.assert_allclose(divided, plain, rtol=1e-5)


def test_losses_below_zero_are_counted_from_their_bound():
    family = TaskFamily(
        sample=lambda random, split: {},
        init=lambda key: jnp.ones(2),
        batch=lambda data, key, split: data,
        loss=lambda w, batch: jnp.sum(w**2) - 3.0,
        lower_bound=-3.0,
    )
    raised = above_bound(family)
    assert float(raised.loss(jnp.ones(2), {})) == 2.0 and raised.lower_bound == 0
    with_state = lambda w, batch, state: (jnp.sum(w**2) - 3.0, state)  # noqa: E731
    stateful = above_bound(family._replace(loss=with_state, state=lambda key: jnp.zeros(1)))
    assert float(stateful.loss_of(jnp.ones(2), {}, jnp.zeros(1))) == 2.0
    assert above_bound(tasks.task("quadratic")) is tasks.task("quadratic")
