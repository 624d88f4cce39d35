import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import OuterConfig
from common.errors import UserError
from learner.outer_optimizer import OuterOptimizer, clip, from_leaves, leaves, norm, optimizer

THETA = np.array([1.0, -2.0, 3.0], np.float32)


def outer(name="sgd", clip="none", **fields):
    return OuterConfig(optimizer=name, clip=clip, learning_rate=fields.pop("learning_rate", 0.5), **fields)


def run(config, gradients, theta=THETA):
    made = OuterOptimizer(config)
    state, steps = made.init(theta), []
    for gradient in gradients:
        steps.append(made.step(np.asarray(gradient, float), state, theta))
        theta, state = steps[-1].theta, steps[-1].outer
    return steps


def test_step_descends():
    [step] = run(outer(), [[2.0, 0.0, -4.0]])
    np.testing.assert_array_equal(step.theta, [0, -2, 5])
    assert step.theta.dtype == np.float32
    assert (step.gradient_norm, step.update_norm) == pytest.approx((20**0.5, 5**0.5))
    assert (step.clipped, step.rejected) == (0, False)


def test_adam_follows_the_release():
    """Two steps of Adam by hand: learning rate 0.1, b1 0.5, b2 0.999."""
    steps = run(outer("adam", learning_rate=0.1, options={"b1": 0.5}), [[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]])
    m, v = (0.5 * 0.5 * 1 + 0.5 * 3) / (1 - 0.5**2), (0.999 * 0.001 * 1 + 0.001 * 9) / (1 - 0.999**2)
    np.testing.assert_allclose(steps[0].theta, THETA - 0.1, rtol=1e-5)
    np.testing.assert_allclose(steps[1].theta, steps[0].theta - 0.1 * m / np.sqrt(v), rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "lion", "nadam", "sgd", "adabelief", "yogi"])
def test_optimizer_solves_a_quadratic(name):
    made, theta = OuterOptimizer(outer(name, learning_rate=0.05)), THETA
    state = made.init(theta)
    for _ in range(300):
        step = made.step(theta.astype(float), state, theta)
        theta, state = step.theta, step.outer
    assert norm(theta.astype(float)) < 0.2


def test_second_step_does_not_compile():
    made = OuterOptimizer(outer("adam", schedule="cosine"))
    state = made.init(THETA)
    step = made.step(np.ones(3), state, THETA)
    with jax.no_tracing():
        made.step(np.full(3, 2.0), step.outer, step.theta)


def test_cosine_schedule_falls_to_zero_over_the_run():
    steps = run(outer(schedule="cosine", updates=4), [[1.0, 0, 0]] * 6)
    lengths = [s.update_norm for s in steps]
    np.testing.assert_allclose(lengths[:4], 0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-5)
    assert lengths[4:] == [0, 0]


def test_clip_elementwise_counts_what_it_changed():
    clipped, share = clip(np.array([-3.0, 0.05, 0.1, 0.2]), "elementwise", 0.1)
    np.testing.assert_array_equal(clipped, [-0.1, 0.05, 0.1, 0.1])
    assert share == 0.5


def test_clip_global_norm_keeps_the_direction():
    clipped, share = clip(np.array([3.0, -4.0]), "global_norm", 1.0)
    np.testing.assert_allclose(clipped, [0.6, -0.8], rtol=1e-15)
    assert share == 1
    kept, share = clip(np.array([0.6, -0.8]), "global_norm", 1.0)
    np.testing.assert_array_equal(kept, [0.6, -0.8])
    assert share == 0


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_clip_agrees_with_optax_and_never_overflows(numbers, limit):
    gradient = np.array(numbers)
    clipped, _ = clip(gradient, "global_norm", limit)
    assert norm(clipped) <= limit * (1 + 1e-12)
    assert (np.sign(clipped) * np.sign(gradient) >= 0).all()
    if np.abs(gradient).max() < 1e15:
        expected, _ = optax.clip_by_global_norm(limit).update(gradient.astype(np.float32), optax.EmptyState())
        np.testing.assert_allclose(clipped, expected, rtol=1e-5, atol=1e-30)


def test_norm_at_the_ends_of_float64():
    assert norm(np.array([3e200, 4e200])) == pytest.approx(5e200)
    assert norm(np.array([3e-200, 4e-200])) == pytest.approx(5e-200)
    assert norm(np.zeros(3)) == 0


@pytest.mark.parametrize(("name", "gradient"), [("sgd", 1e39), ("adam", 1e30), ("sgd", 3e38)])
def test_step_that_leaves_float32_is_rejected(name, gradient):
    """Adam's second moment overflows first: kept, it would stop the coordinate for ever."""
    good, bad, after = run(outer(name, learning_rate=10.0), [[1.0] * 3, [1.0, gradient, 1.0], [1.0] * 3])
    assert bad.rejected and not after.rejected
    np.testing.assert_array_equal(bad.theta, good.theta)
    assert bad.update_norm == 0 and after.update_norm > 0
    assert all(np.isfinite(leaf).all() for leaf in leaves(bad.outer))


def test_leaves_restore_the_state():
    made = OuterOptimizer(outer("adam"))
    step = made.step(np.ones(3), made.init(THETA), THETA)
    restored = from_leaves(leaves(step.outer), made.init(THETA))
    assert jax.tree.structure(restored) == jax.tree.structure(step.outer)
    again = [made.step(np.ones(3), state, step.theta).theta.tobytes() for state in (step.outer, restored)]
    assert again[0] == again[1]


def test_from_leaves_of_another_optimizer_is_none():
    adam, sgd = OuterOptimizer(outer("adam")), OuterOptimizer(outer("sgd"))
    assert from_leaves(leaves(adam.init(THETA)), sgd.init(THETA)) is None
    assert from_leaves(leaves(adam.init(THETA)), adam.init(THETA[:2])) is None


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (outer("adan_w"), "outer.optimizer = 'adan_w' is not an optimizer of optax: did you mean adan"),
        (outer("qqqqqq"), "use one of .*adam, .*sgd"),
        (outer("clip"), "not an optimizer of optax"),
        (outer("adam", options={"beta1": 0.5}), "outer.options.beta1 is not an option of optax.adam: did you mean"),
        (outer("adam", options={"learning_rate": 0.5}), "outer.options.learning_rate is not an option"),
        (outer("adam", options={"b1": "high"}), "optax.adam does not work with outer.options = .*'high'.*correct"),
        (outer("lbfgs"), "optax.lbfgs does not work"),
    ],
)
def test_optimizer_bad_choice_is_a_user_error(config, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        optimizer(config)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Specifying a key")  # optax's, of noisy_sgd
@pytest.mark.parametrize("name, options", [("noisy_sgd", {}), ("adam", {"mu_dtype": "bfloat16"})])
def test_optimizer_with_a_state_no_checkpoint_holds_is_rejected(name, options):
    with pytest.raises(UserError, match="which a checkpoint cannot hold"):
        optimizer(outer(name, options=options))
