"""The paper's learned optimizer against its definition in plain NumPy, one parameter at a time."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.config import OptimizerConfig
from common.optimizer import make_family, mlp

DECAYS = [0.5, 0.9, 0.99, 0.999, 0.9999]
TIMES = [3, 10, 30, 100, 300, 1000, 3000, 10000, 300000]
NO_MOMENTUM = [0, 6, *range(12, 31)]  # the remaining ones of the 31 inputs
NO_TIME = list(range(22))


def layers(theta, inputs=31, hidden=32):
    """Kernel and bias of both layers, float64."""
    theta = np.asarray(theta, np.float64)
    parts = np.split(theta, np.cumsum([inputs * hidden, hidden, hidden * 2]))
    return parts[0].reshape(inputs, hidden), parts[1], parts[2].reshape(hidden, 2), parts[3]


def reference(theta, w, gradients):
    """Updates of one tensor over several steps, [steps, n], for the given gradients and a w that stays."""
    kernel, bias, out_kernel, out_bias = layers(theta)
    momentum, rms, updates = np.zeros((5, len(w))), np.zeros((5, len(w))), []
    for t, g in enumerate(gradients):
        for k, d in enumerate(DECAYS):
            momentum[k] = d * momentum[k] + (1 - d) * g
            rms[k] = d * rms[k] + (1 - d) * g**2
        columns = [g, *(momentum / np.sqrt(rms + 1e-6)), w, *momentum, *rms, *(1 / np.sqrt(rms + 1e-6))]
        columns = [x / np.sqrt(1e-5 + np.mean(x**2)) for x in columns]
        update = []
        for i in range(len(w)):
            x = np.array([column[i] for column in columns] + [np.tanh(t / scale - 1) for scale in TIMES])
            direction, magnitude = np.maximum(x @ kernel + bias, 0) @ out_kernel + out_bias
            update.append(-0.001 * direction * np.exp(0.001 * magnitude))
        updates.append(update)
    return np.array(updates)


class Nested(NamedTuple):
    kernel: jax.Array
    rest: list


def params(dtype=jnp.float32):
    """A nested tree with tensors of rank 0 to 4 and of very different scale."""
    rng = np.random.default_rng(1)
    shapes = {"a": Nested((2, 3), [(4,), ()]), "b": (1, 2, 1, 3)}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2), dtype)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda x: type(x) is tuple)


def theta(dtype=jnp.float32, **options):
    """Random, with biases and outputs large enough that every term of the update counts."""
    size = make_family(OptimizerConfig(**options)).size
    return jnp.asarray(0.35 * np.random.default_rng(0).normal(size=size), dtype)


@cache
def compiled(**options):
    return jax.jit(lambda theta, *args: mlp.transform(theta, **options).update(*args))


def run(theta, w, gradients, **options):
    """Updates of several steps for the given gradients and a w that stays, and the state after them."""
    state, updates = jax.jit(mlp.transform(theta, **options).init)(w), []
    for g in gradients:
        step, state = compiled(**options)(theta, g, state, w)
        updates.append(step)
    return updates, state


def gradients_of(w, steps=4):
    def wave(x, k):
        return jnp.asarray(np.cos(np.asarray(x) + np.asarray(k, x.dtype)) * (1 + k), x.dtype)

    return [jax.tree.map(partial(wave, k=k), w) for k in range(steps)]


def test_updates_of_a_nested_tree_equal_the_definition():
    with jax.enable_x64(True):
        w, start = params(jnp.float64), theta(jnp.float64)
        gradients = gradients_of(w)
        got, state = run(start, w, gradients)
        assert jax.tree.structure(got[0]) == jax.tree.structure(w) and int(state.step) == 4
        stack = zip(*(jax.tree.leaves(tree) for tree in got))
        steps = zip(*(jax.tree.leaves(tree) for tree in gradients))
        for leaf, updates, grads in zip(jax.tree.leaves(w), stack, steps):
            want = reference(start, np.ravel(leaf), [np.ravel(g) for g in grads])
            np.testing.assert_allclose([np.ravel(u) for u in updates], want, rtol=1e-11)
            assert all(u.shape == leaf.shape for u in updates)


def test_float32_updates_are_near_float64():
    w = params()
    got, state = run(theta(), w, gradients_of(w))
    assert {leaf.dtype for leaf in jax.tree.leaves((got, state.momentum, state.rms))} == {jnp.dtype(jnp.float32)}
    for i, leaf in enumerate(jax.tree.leaves(w)):
        grads = [np.ravel(jax.tree.leaves(g)[i]).astype(float) for g in gradients_of(w)]
        want = reference(theta(), np.ravel(leaf), grads)
        np.testing.assert_allclose([np.ravel(jax.tree.leaves(u)[i]) for u in got], want, rtol=1e-3, atol=1e-6)


def test_second_update_does_not_recompile():
    update = jax.jit(mlp.transform(theta()).update)
    w, state = params(), mlp.transform(theta()).init(params())
    for g in gradients_of(w):
        step, state = update(g, state, w)
        w = optax.apply_updates(w, step)
    assert update._cache_size() == 1


def test_make_family_passes_the_options_of_the_config():
    w, options = params(), {"hidden": 3, "momentum_features": False}
    family = make_family(OptimizerConfig(**options))
    start = family.init(jax.random.key(0))
    (g,) = gradients_of(w, 1)
    direct = mlp.transform(mlp.init(jax.random.key(0), **options), **options)
    got, want = (
        jax.jit(lambda g, w, t=t: t.update(g, t.init(w), w)[0])(g, w) for t in (family.transform(start), direct)
    )
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_half_precision_parameters_keep_a_float32_state():
    w = params(jnp.bfloat16)
    updates, state = run(theta(), w, gradients_of(w))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), w)
    grads = [jax.tree.map(lambda x: x.astype(jnp.float32), g) for g in gradients_of(w)]
    want, _ = run(theta(), wide, grads)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.momentum)} == {jnp.dtype(jnp.float32)}
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(want)):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.01)


def test_papers_network_has_1090_parameters_in_four_tensors():
    family = make_family(OptimizerConfig())
    assert family.layout == ((31, 32), (32,), (32, 2), (2,)) and family.size == 1090
    assert np.array_equal(np.bincount(family.segments), [992, 32, 64, 2])
    assert np.all(np.diff(family.segments) >= 0)


def test_init_has_fan_in_variance_and_zero_biases():
    start = make_family(OptimizerConfig()).init(jax.random.key(3))
    assert start.shape == (1090,) and start.dtype == jnp.float32
    kernel, bias, out_kernel, out_bias = layers(start)
    assert not bias.any() and not out_bias.any()
    truncated = 0.8796  # standard deviation of a standard normal truncated at two
    assert np.std(kernel) == pytest.approx(truncated / np.sqrt(31), rel=0.1)
    assert np.std(out_kernel) == pytest.approx(truncated / np.sqrt(32), rel=0.2)
    assert np.abs(kernel).max() <= 2 / np.sqrt(31)
    assert not np.array_equal(start, make_family(OptimizerConfig()).init(jax.random.key(4)))


@pytest.mark.heavy
@pytest.mark.parametrize(
    "options, kept, size",
    [
        ({"momentum_features": False}, NO_MOMENTUM, 770),
        ({"time_features": False}, NO_TIME, 802),
        ({"momentum_features": False, "time_features": False}, [0, 6, *range(12, 22)], 482),
    ],
)
def test_ablation_equals_the_whole_with_zeroed_inputs(options, kept, size):
    family, w = make_family(OptimizerConfig(**options)), params()
    small = theta(**options)
    assert family.size == size == small.size
    kernel = np.zeros((31, 32))
    kernel[kept] = np.reshape(small[: len(kept) * 32], (len(kept), 32))
    whole = jnp.concatenate([jnp.asarray(kernel, jnp.float32).ravel(), small[len(kept) * 32 :]])
    got, _ = run(small, w, gradients_of(w), **options)
    want, _ = run(whole, w, gradients_of(w))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8)


def by_hand(direction_bias=0.0, magnitude=0.0):
    """theta whose direction is the normalised gradient: one hidden unit for its positive, one for its negative part."""
    kernel, out = np.zeros((31, 32)), np.zeros((32, 2))
    kernel[0, :2], out[:2, 0] = (1, -1), (1, -1)
    return jnp.asarray(
        np.concatenate([kernel.ravel(), np.zeros(32), out.ravel(), [direction_bias, magnitude]]), jnp.float32
    )


def test_theta_made_by_hand_gives_known_updates():
    w = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([0.5])}
    g = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([1e-4])}
    (update,), _ = run(by_hand(), w, [g])
    np.testing.assert_allclose(update["a"], [-0.003 / np.sqrt(12.5), 0.004 / np.sqrt(12.5)], rtol=1e-5)
    np.testing.assert_allclose(update["b"], [-0.001 * 1e-4 / np.sqrt(1e-5 + 1e-8)], rtol=1e-5)
    (doubled,), _ = run(by_hand(magnitude=1000 * np.log(2)), w, [g])
    np.testing.assert_allclose(doubled["a"], 2 * update["a"], rtol=1e-5)
    (moved,), _ = run(by_hand(direction_bias=1.0), w, [g])
    np.testing.assert_allclose(moved["a"], update["a"] - 0.001, rtol=1e-5)


@pytest.mark.heavy
def test_theta_made_by_hand_solves_a_problem_in_optax():
    target = {"a": jnp.array([0.3, -0.2]), "b": jnp.array([[0.1]])}
    loss = lambda w: optax.tree.norm(optax.tree.sub(w, target)) ** 2  # noqa: E731
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), mlp.transform(by_hand()), optax.scale(5.0))

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        return (optax.apply_updates(w, updates), state), loss(w)

    w = jax.tree.map(jnp.zeros_like, target)
    losses = jax.lax.scan(step, (w, optimizer.init(w)), length=150)[1]
    assert losses[0] == pytest.approx(0.14) and losses[-1] < 1e-3


def test_each_tensor_is_normalised_separately():
    w = params()
    g = gradients_of(w, 1)[0]
    scaled = g | {"b": 1e3 * g["b"]}
    before, after = (run(theta(), w, [x])[0][0] for x in (g, scaled))
    for a, b in zip(jax.tree.leaves(before["a"]), jax.tree.leaves(after["a"])):
        assert np.array_equal(a, b)
    assert not np.allclose(before["b"], after["b"], rtol=1e-3)


@pytest.mark.heavy
def test_vmap_over_theta_equals_a_loop():
    w = params()
    thetas = jnp.stack([theta(), 2 * theta()])
    (g,) = gradients_of(w, 1)
    together = jax.jit(jax.vmap(lambda t: mlp.transform(t).update(g, mlp.transform(t).init(w), w)[0]))(thetas)
    for k in range(2):
        alone, _ = run(thetas[k], w, [g])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone[0])):
            np.testing.assert_allclose(a[k], b, rtol=1e-4, atol=1e-8)


def test_update_without_parameters_is_rejected():
    w = params()
    with pytest.raises(ValueError, match="call update"):
        mlp.transform(theta()).update(w, mlp.transform(theta()).init(w))
