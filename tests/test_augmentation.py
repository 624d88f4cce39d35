"""Laws of task augmentation: the same problem in other units, which at scales of one is the same to the bit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tasks

from common.augmentation import augmented, draw
from common.config import TaskConfig
from common.errors import UserError
from common.optimizer import make_family
from workers.trajectory import Sampler
from workers.unroll import OuterLoss, Problem, Unroll
from workers.worker import make_engine

LEVELS = ("global", "tensor", "coordinate")
SHAPES = {"a": jax.ShapeDtypeStruct((3, 2), jnp.float32), "b": jax.ShapeDtypeStruct((4,), jnp.float32)}
THETA = np.array([0.05, 0.5])  # rate and momentum


def augmentation(*levels, bound=10.0):
    return TaskConfig(augment=levels, augment_range=bound)


def scales_of(seed, *levels, bound=10.0):
    return draw(np.random.default_rng(seed), SHAPES, augmentation(*levels, bound=bound))


def test_draw_global_is_one_scale_for_all():
    scales = scales_of(0, "global")
    assert scales["a"].shape == scales["b"].shape == () and scales["a"] == scales["b"] != 1
    assert scales["a"].dtype == np.float32


def test_draw_tensor_is_one_scale_for_each():
    scales = scales_of(0, "tensor")
    assert scales["a"].shape == scales["b"].shape == () and scales["a"] != scales["b"]


def test_draw_coordinate_is_one_scale_for_each_weight():
    scales = scales_of(0, "coordinate")
    assert scales["a"].shape == (3, 2) and len(np.unique(np.concatenate([scales["a"].ravel(), scales["b"]]))) == 10


def test_draw_levels_multiply():
    both = scales_of(0, "global", "coordinate", bound=1.0 + 1e-9)
    assert np.allclose(both["a"], 1) and scales_of(1, *LEVELS)["a"].shape == (3, 2)
    wide = np.concatenate([scales_of(seed, *LEVELS)["b"] for seed in range(400)])
    assert wide.max() > 100 and wide.min() < 1 / 100  # beyond the range of a single level
    assert np.all((wide <= 1000) & (wide >= 1 / 1000))


def test_draw_is_log_uniform_in_its_range():
    """Kolmogorov-Smirnov; a correct program fails with probability 1e-6 (the seeds are fixed)."""
    logs = np.sort([np.log(scales_of(seed, "tensor", bound=4.0)["a"]) for seed in range(1000)])
    uniform = (logs / np.log(4.0) + 1) / 2
    assert np.abs(uniform - (np.arange(1000) + 0.5) / 1000).max() < np.sqrt(np.log(2e6) / 2 / 1000)


def wrapped(name, *levels, bound=10.0):
    family = tasks.task(name)
    return augmented(family, replace(tasks.TASKS[name], augment=levels, augment_range=bound))


@pytest.mark.heavy
def test_sample_leaves_the_task_and_later_draws_as_they_are():
    plain, random, other = tasks.task("mlp"), np.random.default_rng(5), np.random.default_rng(5)
    data = wrapped("mlp", *LEVELS).sample(random, "outer_train")
    jax.tree.map(np.testing.assert_array_equal, data.of, plain.sample(other, "outer_train"))
    assert random.integers(2**32) == other.integers(2**32)


@pytest.mark.heavy
def test_loss_and_gradient_are_those_of_the_scaled_weights():
    family, plain = wrapped("mlp", *LEVELS), tasks.task("mlp")
    data = jax.device_put(family.sample(np.random.default_rng(0), "outer_train"))
    w, key = jax.jit(plain.init)(jax.random.key(1)), jax.random.key(2)
    v = jax.jit(family.initial)(data, w)
    scales = jax.tree.map(lambda s, x: np.broadcast_to(s, x.shape), data.scales, w)
    jax.tree.map(lambda v, s, x: np.testing.assert_allclose(v * s, x, rtol=1e-6), v, scales, w)
    batch = jax.jit(lambda data: family.batch(data, key, "train"))(data)
    loss, gradient = jax.jit(jax.value_and_grad(family.loss))(v, batch)
    want, slope = jax.jit(jax.value_and_grad(plain.loss))(w, batch.of)
    assert float(loss) == pytest.approx(float(want), rel=1e-5)
    jax.tree.map(lambda g, s, x: np.testing.assert_allclose(g, s * x, rtol=1e-4, atol=1e-6), gradient, scales, slope)
    assert jax.jit(family.accuracy)(v, batch) == jax.jit(plain.accuracy)(w, batch.of)


def advances(family, count=3):
    config = tasks.config("mlp")
    optimizer = make_family(config.optimizer)
    sampler = Sampler(config, family, Unroll(family, optimizer, OuterLoss(), 4), "a worker", optimizer.size)
    trajectory, found = sampler.begin(0, 1), []
    for sequence in range(count):
        advance, trajectory = sampler.advance(trajectory, THETA, 0, sequence, with_rp=True)
        found.append((advance.pair.plus.loss, advance.pair.minus.loss, advance.pair.rp, advance.es))
    return found, jax.device_get(trajectory.plus.w)


@pytest.mark.heavy
def test_scales_of_one_change_no_bit():
    plain, one = advances(tasks.task("mlp")), advances(wrapped("mlp", *LEVELS, bound=1.0))
    jax.tree.map(np.testing.assert_array_equal, plain, one)
    other = advances(wrapped("mlp", *LEVELS, bound=2.0))
    assert other[0][-1][0] != plain[0][-1][0]


@pytest.mark.heavy
def test_sgd_with_a_global_scale_is_sgd_at_the_squared_rate():
    family = wrapped("quadratic", "global", bound=3.0)
    data = jax.device_put(family.sample(np.random.default_rng(1), "outer_train"))
    optimizer = make_family(tasks.config().optimizer)
    losses = []
    for task, own, rate in (
        (family, data, THETA[0]),
        (tasks.task("quadratic"), data.of, THETA[0] * float(data.scales["w"]) ** 2),
    ):
        unroll, problem = Unroll(task, optimizer, OuterLoss(), 4), Problem(own, jax.random.key(0))
        start = unroll.start(problem, jax.random.key(1))
        losses.append(unroll.forward(jnp.array([rate, 0.5], jnp.float32), problem, start, 9)[0])
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.heavy
def test_engine_augments_what_workers_train():
    config = tasks.config(task=replace(tasks.TASKS["quadratic"], augment=("tensor",)))
    assert make_engine(config).unrolls[0].task.fitted is not None
    assert make_engine(tasks.config()).unrolls[0].task.fitted is None


@pytest.mark.parametrize(
    "values, sentence",
    [({"augment": ("layer",)}, "use one of global, tensor, coordinate"), ({"augment_range": 0.5}, "must be 1 .. 1")],
)
def test_impossible_augmentation_is_rejected(values, sentence):
    with pytest.raises(UserError, match=sentence):
        TaskConfig(**values)
