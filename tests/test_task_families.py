"""Laws that hold for each family of networks: its derivatives, what it starts at, and that Adam learns it in a few steps."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tasks

from common.config import DatasetConfig, OptimizerConfig, TaskConfig
from common.data.text import VOCABULARY
from common.errors import UserError
from common.optimizer import make_family
from common.task import open_task
from workers.inner_step import OuterLoss, Problem, inner_batch
from workers.trajectory import Sampler
from workers.unroll import Unroll

TINY = {
    "autoencoder": TaskConfig(family="autoencoder", units=(4, 3), classes=3, batch_size=4, inner_steps=12),
    "residual": TaskConfig(family="residual", units=(3, 4), strides=(2, 1), classes=3, batch_size=4, inner_steps=12),
    "recurrent": TaskConfig(family="recurrent", width=4, depth=2, context=5, batch_size=3, inner_steps=12),
    "transformer": TaskConfig(family="transformer", width=4, depth=1, heads=2, context=5, batch_size=3, inner_steps=12),
}
LEARNED = {  # sizes, the rate of Adam, its steps, and what the loss falls below
    "autoencoder": (TaskConfig(family="autoencoder", units=(16, 4), classes=3, batch_size=16), 0.01, 150, 0.065),
    "residual": (
        TaskConfig(family="residual", units=(8, 8), strides=(2, 1), classes=3, batch_size=16),
        0.01,
        100,
        0.95,
    ),
    "recurrent": (TaskConfig(family="recurrent", width=16, depth=1, context=16, batch_size=8), 0.03, 150, 0.7),
    "transformer": (TaskConfig(family="transformer", width=16, depth=1, context=16, batch_size=8), 0.01, 150, 2.0),
}
WORDS = ("def", "return", "self", "value", "import", "lambda", "yield", "class")
H = 1e-5  # of central differences in float64, whose error is about h^2


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of words in random order: only the first character of each is unpredictable."""
    words = np.random.default_rng(0).choice(WORDS, 12000)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(words))
    return str(path)


def opened(task, text, **sections):
    dataset = DatasetConfig(image_size=8, classes=20, train_images=30, valid_images=5, test_images=40, text=text)
    config = tasks.config(**{"task": task, "dataset": dataset, **sections})
    return config, open_task(config).family


def problem_of(family, seed=0):
    data = family.sample(np.random.default_rng(seed), "outer_train")
    return Problem(jax.device_put(data), jax.random.key(seed))


def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@pytest.fixture(params=TINY)
def name(request):
    return request.param


@pytest.mark.heavy
def test_gradient_equals_central_differences(name, text):
    _, family = opened(TINY[name], text)
    with jax.enable_x64(True):
        random = np.random.default_rng(7)  # a ReLU of zero, as biases of zero can give it, has no derivative
        w = jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape), wide(jax.jit(family.init)(jax.random.key(0))))
        batch = inner_batch(family, problem_of(family), jnp.int32(0))
        loss = jax.jit(lambda w: family.loss(w, batch))
        gradient = jax.jit(jax.grad(loss))(w)
        for seed in range(3):
            along = np.random.default_rng(seed)
            direction = jax.tree.map(lambda x, random=along: random.normal(size=x.shape), w)
            ends = [loss(jax.tree.map(lambda x, d, h=h: x + h * d, w, direction)) for h in (H, -H)]
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), gradient, direction)))
            assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / (2 * H), rel=1e-5, abs=1e-9)


@pytest.mark.heavy
def test_outer_gradient_equals_central_differences(name, text):
    _, family = opened(TINY[name], text)
    optimizer = make_family(OptimizerConfig(family="sgd"))
    with jax.enable_x64(True):
        unroll, problem = Unroll(family, optimizer, OuterLoss(), 4), problem_of(family)
        state, theta = wide(unroll.start(problem, jax.random.key(1))), jnp.array([0.1, 0.5])
        losses, gradient, _ = unroll.losses_and_grad(theta, problem, state, 7)
        for axis, slope in zip(np.eye(2), gradient):
            ends = [unroll.forward(theta + h * axis, problem, state, 7)[0].mean() for h in (H, -H)]
            assert slope == pytest.approx((ends[0] - ends[1]) / (2 * H), rel=1e-5, abs=1e-9)
        assert losses.shape == (7,) and np.isfinite(gradient).all() and np.abs(gradient).min() > 0


@pytest.mark.heavy
def test_trajectory_follows_from_its_seed(name, text):
    config, family = opened(TINY[name], text)
    unroll, pairs = Unroll(family, make_family(config.optimizer), OuterLoss(), 4), []
    for _ in range(2):
        sampler = Sampler(config, family, unroll, "a worker", 2)
        pairs.append(sampler.advance(sampler.begin(0, 1), np.array([0.1, 0.5]), 0, 0, with_rp=False)[0].pair)
    assert np.isfinite(pairs[0].es).all() and np.all(pairs[0].es != 0)
    np.testing.assert_array_equal(pairs[0].es, pairs[1].es)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["residual", "transformer"])  # the others have the ranks of the transformer, too
@pytest.mark.parametrize("optimizer", ["mlp_muon", "celo2"])
def test_learned_optimizer_updates_tensors_of_all_ranks(name, text, optimizer):
    family, learned = opened(TINY[name], text)[1], make_family(OptimizerConfig(family=optimizer))
    w, transform = jax.jit(family.init)(jax.random.key(0)), learned.transform(learned.init(jax.random.key(1)))
    random = np.random.default_rng(0)
    gradient = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), w)
    updates = jax.jit(lambda w, gradient: transform.update(gradient, transform.init(w), w)[0])(w, gradient)
    assert {x.ndim for x in w.values()} == ({1, 2, 4} if name == "residual" else {1, 2})
    for one, update in zip(jax.tree.leaves(w), jax.tree.leaves(updates)):
        assert update.shape == one.shape and np.isfinite(update).all() and np.any(update != 0)


def test_tasks_have_the_same_shapes_and_differ(name, text):
    _, family = opened(TINY[name], text)
    one, same, other = (family.sample(np.random.default_rng(seed), "outer_train") for seed in (0, 0, 1))
    assert jax.tree.map(np.shape, one) == jax.tree.map(np.shape, other)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.heavy
def test_loss_begins_at_that_of_an_untrained_guess(name, text):
    _, family = opened(LEARNED[name][0], text)
    w, batch = jax.jit(family.init)(jax.random.key(0)), inner_batch(family, problem_of(family), jnp.int32(0))
    guess, tolerance = np.log(3 if name == "residual" else VOCABULARY), 0.1  # a uniform one
    if name == "autoencoder":  # grey images
        guess, tolerance = np.mean((np.asarray(batch[0], np.float64) / 127.5 - 1) ** 2), 0.005
    assert jax.jit(lambda w, batch: family.loss(w, batch))(w, batch) == pytest.approx(guess, abs=tolerance)


@pytest.mark.heavy
def test_adam_learns_it_in_a_few_steps(name, text):
    sizes, rate, steps, below = LEARNED[name]
    _, family = opened(sizes, text)
    unroll = Unroll(family, make_family(OptimizerConfig(family="adam")), OuterLoss(), 50)
    problem = problem_of(family)
    losses, state = unroll.forward(adam(rate), problem, unroll.start(problem, jax.random.key(0)), steps)
    assert losses[-10:].mean() < below
    held = jax.jit(partial(family.batch, split="test"))(problem.data, jax.random.key(5))
    assert jax.jit(family.loss)(state.w, held) < below  # on data that it has not been trained on
    if family.accuracy is not None:
        assert 0.3 < float(jax.jit(family.accuracy)(state.w, held)) <= 1


def adam(rate):
    return make_family(OptimizerConfig(family="adam", learning_rate=rate)).init(jax.random.key(0))


@pytest.mark.heavy
def test_words_are_harder_without_their_context(text):
    """What the language models are asked for in `LEARNED` takes more than the frequency of characters."""
    counts = np.bincount(np.frombuffer(Path(text).read_bytes(), np.uint8))
    shares = counts[counts > 0] / counts.sum()
    assert -np.sum(shares * np.log(shares)) > 2.5


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"family": "transformer", "width": 10, "heads": 4}, r"task.width = 10 is no multiple of task.heads = 4"),
        ({"family": "transformer", "depth": 0}, r"task.depth = 0: must be 1 .. 64"),
        ({"family": "residual", "units": (8, 8)}, "task.units and task.strides differ in length"),
        ({"family": "residual", "units": (8,), "strides": (2,)}, r"task.units = \[8\]: residual needs two numbers"),
        ({"family": "autoencoder", "units": ()}, "autoencoder needs a number or more"),
        ({"family": "transformer", "context": 1000}, r"task.context = 1000: must be 1 .. 512"),
    ],
)
def test_impossible_sizes_are_rejected(values, sentence):
    with pytest.raises(UserError, match=sentence):
        TaskConfig(**values)
