"""The unroll engine against a plain loop with optax, differentiated by JAX, in float64."""

import doctest
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tasks

from common.config import OptimizerConfig
from common.optimizer import Family, make_family
from common.task import TaskFamily
from workers import segment
from workers import unroll as engine
from workers.unroll import InnerState, OuterLoss, Problem, Unroll

SEGMENT, LONGEST = 4, 11
WINDOWS = (1, 3, 4, 6, 8, 11)  # shorter than a segment, equal, multiples, and neither


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def alternating(theta):
    """An optimizer whose state consists of an integer and a Boolean."""

    def update(updates, state, params=None):
        count, odd = state
        rate = theta[0] * jnp.where(odd, 1.0, 0.5) / (1 + count)
        return jax.tree.map(lambda g: -rate * g, updates), (count + 1, ~odd)

    return optax.GradientTransformation(lambda params: (jnp.int32(0), jnp.bool_(False)), update)


def family_of(name):
    if name == "alternating":
        return Family(lambda key: jnp.array([0.3], jnp.float32), alternating, ((1,),))
    return make_family(OptimizerConfig(family=name, learning_rate=0.05))


class Case(NamedTuple):
    task: str
    family: str
    outer_loss: OuterLoss = OuterLoss()
    theta: tuple[float, ...] | None = None


CASES = {
    "the learned optimizer on convolutions": Case("shallow conv", "mlp"),
    "the learned optimizer": Case("linear", "mlp"),
    "factored moments": Case("linear", "adafactor_mlp"),
    "normalized updates": Case("linear", "celo2"),
    "orthogonalized momentum": Case("linear", "mlp_muon"),
    "fresh validation batches": Case("mlp", "sgd", OuterLoss("valid", 2)),
    "adam": Case("quadratic", "adam"),
    "integer states": Case("quadratic", "alternating"),
    "divergence beyond the clamp": Case("quadratic", "sgd", OuterLoss(clamp=60.0), (2.7, 0.1)),
}
LONG_TO_COMPILE = {
    "the learned optimizer on convolutions",
    "factored moments",
    "normalized updates",
    "orthogonalized momentum",
    "fresh validation batches",
    "the learned optimizer",
}


def plain_step(case, theta, problem, w, optimizer, t):
    """One step by the definition: the gradient is computed where it is used, and optax applies it."""
    task, transform = tasks.task(case.task), family_of(case.family).transform(theta)
    loss = lambda w, batch: jnp.minimum(task.loss(w, batch), case.outer_loss.clamp)  # noqa: E731
    key = lambda n: jax.random.fold_in(problem.key, n)  # noqa: E731
    gradient = jax.grad(loss)(w, task.batch(problem.data, key(2 * t), "train"))
    updates, optimizer = transform.update(gradient, optimizer, w)
    w = optax.apply_updates(w, updates)
    if case.outer_loss.outer_batches == 0:
        return w, optimizer, loss(w, task.batch(problem.data, key(2 * t + 2), "train"))
    keys = [jax.random.fold_in(key(2 * t + 1), k) for k in range(case.outer_loss.outer_batches)]
    losses = [loss(w, task.batch(problem.data, k, case.outer_loss.objective)) for k in keys]
    return w, optimizer, sum(losses) / len(losses)


class Subject(NamedTuple):
    """A case, compiled by the engine and as a plain loop."""

    case: Case
    unroll: Unroll
    theta: jax.Array
    problem: Problem
    state: Any  # in the middle of an inner problem
    plain: Any  # (theta, problem, state, weights [LONGEST]) -> (weighted sum of losses, losses), and its gradient


def compiled_plain(case):
    def total(theta, problem, state, weights):
        def step(carry, _):
            w, optimizer, t = carry
            w, optimizer, loss = plain_step(case, theta, problem, w, optimizer, t)
            return (w, optimizer, t + 1), loss

        losses = jax.lax.scan(step, (state.w, state.optimizer, state.step), length=LONGEST)[1]
        return weights @ losses, losses

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.fixture(scope="module", params=CASES)
def subject(request):
    case = CASES[request.param]
    with jax.enable_x64(True):
        family, problem = family_of(case.family), tasks.problem(case.task)
        unroll = Unroll(tasks.task(case.task), family, case.outer_loss, SEGMENT)
        theta = np.float64(family.init(jax.random.key(5)) if case.theta is None else case.theta)
        if case.family == "mlp":
            theta *= 5  # larger steps than a fresh theta makes, so that curvature counts
        state = middle(case, unroll, jnp.asarray(theta), problem)
        return Subject(case, unroll, jnp.asarray(theta), problem, state, compiled_plain(case))


def middle(case, unroll, theta, problem):
    """Two steps into an inner problem, with the functions that the tests compile anyway."""
    random = np.random.default_rng(3)
    shapes = jax.eval_shape(tasks.task(case.task).init, jax.random.key(0))
    w = jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape) / np.sqrt(s.size / s.shape[-1])), shapes)
    optimizer = family_of(case.family).transform(theta).init(w)
    state = InnerState(w, optimizer, jax.tree.map(jnp.zeros_like, w), jnp.int32(0))
    return unroll.forward(theta, problem, state, 2)[1]


def only(*names):
    """Restricts a test to some of the cases."""
    cases = [pytest.param(name, marks=pytest.mark.heavy) if name in LONG_TO_COMPILE else name for name in names]
    return pytest.mark.parametrize("subject", cases, indirect=True)


def assert_near(got, want, tolerance):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


PLAIN = only(
    *[name for name in CASES if "convolutions" not in name]
)  # where JAX takes ten seconds to compile the plain loop


@PLAIN
def test_losses_and_grad_for_any_window_equal_a_plain_loop(subject, x64):
    for window in WINDOWS:
        losses, gradient, after = subject.unroll.losses_and_grad(subject.theta, subject.problem, subject.state, window)
        weights = jnp.where(jnp.arange(LONGEST) < window, 1 / window, 0.0)
        (value, plain), slope = subject.plain(subject.theta, subject.problem, subject.state, weights)
        assert losses.shape == (window,) and int(after.step) == 2 + window
        assert_near(losses, plain[:window], 1e-10)
        assert losses.mean() == pytest.approx(float(value), rel=1e-10)
        assert_near(gradient, slope, 1e-8)
        assert np.any(gradient)


@only(*(name for name in CASES if name != "factored moments"))  # for it: test_tensor_families, where no pixel is dead
def test_losses_and_grad_agrees_with_finite_differences(subject, x64):
    random = np.random.default_rng(0)
    for window in (3, 11):
        gradient = subject.unroll.losses_and_grad(subject.theta, subject.problem, subject.state, window)[1]
        for _ in range(2):
            direction = random.normal(size=subject.theta.size)
            direction = 1e-5 * (direction / np.linalg.norm(direction) + gradient / np.linalg.norm(gradient))
            up, down = (
                subject.unroll.forward(subject.theta + d, subject.problem, subject.state, window)[0].mean()
                for d in (direction, -direction)
            )
            assert_near(gradient @ direction, (up - down) / 2, 1e-5)


@PLAIN
def test_forward_equals_a_python_loop_with_optax(subject, x64):
    step = jax.jit(lambda *args: plain_step(subject.case, *args))
    w, optimizer, losses = subject.state.w, subject.state.optimizer, []
    for t in range(2, 8):
        w, optimizer, loss = step(subject.theta, subject.problem, w, optimizer, t)
        losses.append(float(loss))
    got, after = subject.unroll.forward(subject.theta, subject.problem, subject.state, 6)
    np.testing.assert_allclose(got, losses, rtol=1e-10)
    for a, b in zip(jax.tree.leaves((after.w, after.optimizer)), jax.tree.leaves((w, optimizer))):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


@only("the learned optimizer", "adam")
def test_two_windows_end_in_the_state_of_one(subject, x64):
    arguments = subject.theta, subject.problem
    whole, end = subject.unroll.forward(*arguments, subject.state, 11)
    first, middle = subject.unroll.forward(*arguments, subject.state, 5)
    second, _, same = subject.unroll.losses_and_grad(*arguments, middle, 6)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    jax.tree.map(np.testing.assert_array_equal, same, end)


@only("the learned optimizer", "adam")
def test_dropped_tapes_are_recomputed_to_the_same_bits(subject, x64, monkeypatch):
    arguments, calls = (subject.theta, subject.problem, subject.state, 11), []
    compiled = subject.unroll._on_tape
    monkeypatch.setattr(subject.unroll, "_on_tape", lambda *a: calls.append(a) or compiled(*a))
    losses, gradient, _ = subject.unroll.losses_and_grad(*arguments)
    assert len(calls) == 3
    monkeypatch.setattr(engine, "KEPT_BYTES", 1)
    again, same, _ = subject.unroll.losses_and_grad(*arguments)
    assert len(calls) == 3 + 3 + 2  # the newest tape is kept
    np.testing.assert_array_equal(losses, again)
    np.testing.assert_array_equal(gradient, same)


@pytest.mark.parametrize("task", [pytest.param("conv", marks=pytest.mark.heavy), "mlp"])
def test_kept_activations_give_the_gradient_of_recomputed(task, monkeypatch):
    gradients, (family, scale) = {}, (family_of("mlp"), 5) if task == "conv" else (family_of("sgd"), 1)
    for most in (engine.ACTIVATION_BYTES, 0):
        monkeypatch.setattr(engine, "ACTIVATION_BYTES", most)
        unroll, problem = Unroll(tasks.task(task), family, OuterLoss(), SEGMENT), tasks.problem(task)
        state, theta = unroll.start(problem, jax.random.key(0)), scale * family.init(jax.random.key(5))
        _, gradients[most], _ = unroll.losses_and_grad(theta, problem, state, LONGEST)
        assert bool(unroll._blank[0].activations) == bool(most)
    kept, recomputed = gradients.values()
    assert np.any(kept)
    assert_near(kept, recomputed, 1e-4)


def test_conv_keeps_outputs_and_cotangents_of_its_layers(monkeypatch):
    monkeypatch.setattr(segment, "SMALL", 0)
    unroll, problem = Unroll(tasks.task("conv"), family_of("sgd"), OuterLoss(), SEGMENT), tasks.problem("conv")
    state = unroll.start(problem, jax.random.key(0))
    shapes = [
        x.shape for x in jax.eval_shape(partial(segment.activation_rows, unroll.step), problem, state.w, state.step)
    ]
    first, second = (1, 3, 4, 4, 4), (1, 4, 4, 4, 4)  # [pieces, C, H, W, b]; no derivative reads the first's cotangent
    assert sorted(s for s in shapes if len(s) == 5) == [first, second, second]


def test_activations_of_a_task_are_traced_once(monkeypatch):
    calls, traced = [], segment.activation_rows
    monkeypatch.setattr(segment, "activation_rows", lambda *arguments: calls.append(1) or traced(*arguments))
    unroll, problem = Unroll(tasks.task("mlp"), family_of("sgd"), OuterLoss(), SEGMENT), tasks.problem("mlp")
    state = unroll.start(problem, jax.random.key(0))
    unroll.losses_and_grad(family_of("sgd").init(jax.random.key(1)), problem, state, 3 * SEGMENT)
    assert len(unroll._blank) == 3 and len(calls) == 1


@only("divergence beyond the clamp")
def test_diverged_problem_has_the_clamp_as_loss(subject, x64):
    losses, _ = subject.unroll.forward(subject.theta, subject.problem, subject.state, 11)
    assert losses[0] < 60.0 and np.all(losses[1:] == 60.0)


def test_start_has_the_gradient_on_the_first_batch():
    task, problem = tasks.task("mlp"), tasks.problem("mlp")
    state = Unroll(task, family_of("sgd"), OuterLoss(), SEGMENT).start(problem, jax.random.key(7))
    w = jax.jit(task.init)(jax.random.key(7))
    jax.tree.map(np.testing.assert_array_equal, state.w, w)
    batch = task.batch(problem.data, jax.random.fold_in(problem.key, 0), "train")
    for a, b in zip(jax.tree.leaves(state.gradient), jax.tree.leaves(jax.jit(jax.grad(task.loss))(w, batch))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert int(state.step) == 0 and not any(np.any(x) for x in jax.tree.leaves(state.optimizer))


def test_twenty_windows_on_new_problems_compile_once():
    single = Unroll(tasks.task("quadratic"), family_of("mlp"), OuterLoss(), SEGMENT)
    theta = family_of("mlp").init(jax.random.key(0))
    for window in range(1, 21):
        problem = tasks.problem("quadratic", window)
        state = single.start(problem, jax.random.key(window))
        losses, gradient, state = single.losses_and_grad(theta, problem, state, window)
        assert losses.dtype == gradient.dtype == np.float32
        single.forward(theta * 1.1, problem, state, 21 - window)
    assert [f._cache_size() for f in (single.start, single._forward, single._on_tape, single._reverse)] == [1, 1, 1, 1]


def test_unroll_over_non_finite_losses_stays_finite():
    task = TaskFamily(
        sample=lambda random, split: {"low": np.float32(0.0)},
        init=lambda key: {"w": jnp.ones(2)},
        batch=lambda data, key, split: data,
        loss=lambda w, batch: jnp.sum(jnp.log(w["w"] - batch["low"])),  # finite only above `low`
    )
    unroll = Unroll(task, family_of("sgd"), OuterLoss(), SEGMENT)
    problem = Problem({"low": jnp.float32(0.0)}, jax.random.key(0))
    state = unroll.start(problem, jax.random.key(0))
    losses, gradient, after = unroll.losses_and_grad(jnp.array([0.3, 0.0]), problem, state, 9)
    assert losses[0] < 0 and np.all(losses[-3:] == 10.0)
    assert np.all(np.isfinite(gradient)) and gradient[0] < 0
    assert np.all(np.isfinite(after.w["w"]))


def test_unroll_example_of_its_docstring_runs():
    results = doctest.testmod(engine)
    assert results.attempted >= 10 and results.failed == 0
