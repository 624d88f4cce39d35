"""Inner problems: what a task is made of, which images a batch may hold, and the quadratic's numbers."""

import doctest
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import task_family
from common.config import Config, DatasetConfig, TaskConfig
from common.data.dataset import outer_classes
from common.errors import UserError
from common.task import SPLITS, make_task

SMALL = replace(Config(), task=TaskConfig(units=(2,), strides=(2,), classes=3, batch_size=64))


class Marked:
    """A dataset whose every image says by its pixels which class (>= 1), split and image it is. Counts differ."""

    image_shape = (8, 8, 3)
    classes = 10
    fingerprint = "marked"

    def count(self, cls, split):
        return 1 + (cls + SPLITS.index(split)) % 5

    def max_count(self, split):
        return 5

    def images(self, cls, split):
        images = np.zeros((self.count(cls, split), *self.image_shape), np.uint8)
        images[:, 0, 0] = [[1 + cls, SPLITS.index(split), k] for k in range(len(images))]
        return images


@pytest.fixture(scope="module")
def task():
    return make_task(SMALL, Marked())


def draw(task, data, split, count=64):
    """Labels and marks (class, split, image) of many batches."""
    keys = jax.random.split(jax.random.key(0), count)
    pixels, labels = jax.jit(jax.vmap(lambda key: task.batch(jax.device_put(data), key, split)))(keys)
    return np.asarray(labels).ravel(), np.asarray(pixels).reshape(-1, 192)[:, :3]


@pytest.mark.parametrize("outer_split", ["outer_train", "outer_test"])
@pytest.mark.parametrize("split", SPLITS)
def test_batch_images_are_of_the_split_and_never_padding(task, outer_split, split):
    data = task.sample(np.random.default_rng(0), outer_split)
    labels, marks = draw(task, data, split)
    chosen = [int(data[split].pixels[label, 0, 0]) - 1 for label in range(3)]
    assert set(chosen) <= set(outer_classes(Marked(), outer_split, 0)) and len(set(chosen)) == 3
    assert np.array_equal(marks[:, 0] - 1, np.take(chosen, labels)) and set(marks[:, 1]) == {SPLITS.index(split)}
    for label, cls in enumerate(chosen):
        count = Marked().count(cls, split)
        seen = np.bincount(marks[labels == label, 2], minlength=5)
        assert seen[count:].sum() == 0 and seen[:count].min() > 0
        expected = len(labels) / 3 / count  # chi square with at most 4 degrees of freedom; false alarm below 1e-5
        assert np.sum((seen[:count] - expected) ** 2 / expected) < 30


def test_sample_outer_splits_share_no_class(task):
    seen = {"outer_train": set(), "outer_test": set()}
    for split, classes in seen.items():
        for seed in range(40):
            classes |= set(task.sample(np.random.default_rng(seed), split)["train"].pixels[:, 0, 0] - 1)
    assert seen["outer_train"] | seen["outer_test"] == set(range(10))
    assert not seen["outer_train"] & seen["outer_test"]


def test_sample_same_seed_gives_the_same_task(task):
    one, same, other = (task.sample(np.random.default_rng(seed), "outer_train") for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert jax.tree.map(np.shape, one) == jax.tree.map(np.shape, other)
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))
    for split in SPLITS:
        np.testing.assert_array_equal(one[split].pixels[:, 0, 0], one["train"].pixels[:, 0, 0])


@pytest.mark.parametrize("family", ["conv", "mlp"])
def test_loss_and_accuracy_equal_those_of_the_network(family):
    config = replace(SMALL, task=replace(SMALL.task, family=family))
    task = make_task(config, Marked())
    data = jax.device_put(task.sample(np.random.default_rng(0), "outer_train"))
    batch = jax.jit(lambda data, key: task.batch(data, key, "train"))(data, jax.random.key(0))
    loss, accuracy = jax.jit(task.loss), jax.jit(task.accuracy)
    blind = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(task.init, jax.random.key(0)))
    assert loss(blind, batch) == pytest.approx(np.log(3), rel=1e-5)
    always = jnp.array([0.0, 5.0, 0.0])  # the last bias: always class 1
    stubborn = jax.tree.map(lambda x: always if x.shape == (3,) else x, blind)
    assert accuracy(stubborn, batch) == pytest.approx(np.mean(np.asarray(batch[1]) == 1))
    assert 0 < float(accuracy(stubborn, batch)) < 1


def test_make_task_too_few_classes_is_rejected():
    with pytest.raises(UserError, match="3 outer_test classes, too few for tasks of 4"):
        make_task(replace(SMALL, task=replace(SMALL.task, classes=4)), Marked())


def test_make_task_image_family_needs_a_dataset():
    with pytest.raises(UserError, match="needs a dataset"):
        make_task(SMALL, None)


def test_make_task_class_split_depends_on_dataset_seed():
    other = make_task(replace(SMALL, dataset=DatasetConfig(seed=5)), Marked())
    pools = [set(), set()]
    for pool, family in zip(pools, (make_task(SMALL, Marked()), other)):
        for seed in range(40):
            pool |= set(family.sample(np.random.default_rng(seed), "outer_test")["train"].pixels[:, 0, 0])
    assert len(pools[0]) == len(pools[1]) == 3 and pools[0] != pools[1]


def test_quadratic_loss_and_gradient_equal_closed_form():
    task = make_task(replace(Config(), task=TaskConfig(family="quadratic", options={"dimension": 2})), None)
    data = {"curvature": jnp.array([2.0, 3.0]), "centre": jnp.array([1.0, -1.0])}
    w = {"w": jnp.array([2.0, 1.0])}
    assert task.batch(data, jax.random.key(0), "train") is data
    assert task.loss(w, data) == pytest.approx(0.5 * (2 * 1 + 3 * 4))
    np.testing.assert_allclose(jax.grad(task.loss)(w, data)["w"], [2, 6])
    drawn = task.sample(np.random.default_rng(0), "outer_train")
    assert drawn["curvature"].shape == (2,) and np.all((drawn["curvature"] > 0.5) & (drawn["curvature"] < 1.5))
    assert task.init(jax.random.key(0))["w"].shape == (2,)


@pytest.mark.parametrize("dimension", [0, -1, 2.0, "3", True])
def test_quadratic_bad_dimension_is_rejected(dimension):
    task = TaskConfig(family="quadratic", options={"dimension": dimension})
    with pytest.raises(UserError, match=r"task.options.dimension"):
        make_task(replace(Config(), task=task), None)


def test_task_family_example_runs():
    results = doctest.testmod(task_family)
    assert results.attempted == 7 and results.failed == 0
