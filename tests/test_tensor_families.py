"""mlp_lopt, adafactor_mlp, celo2 and mlp_muon against their formulas in plain NumPy, and the symmetries that these promise."""

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from common.config import OptimizerConfig
from common.config.identity import stable_tree
from common.config.run import Config
from common.errors import UserError
from common.optimizer import make_family, usable
from common.optimizer import mlp_muon as mlp_muon_family

FAMILIES = ("mlp_lopt", "adafactor_mlp", "celo2", "mlp_muon")
TIMES = np.array([1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000])
SHAPES = ((), (3,), (3, 2), (2, 2, 3), (2, 1, 3, 2))  # ranks 0 to 4


def theta_of(family: str, scale: float = 0.5) -> np.ndarray:
    """Random; the offsets of decays are small, so that some decays move and second moments stay below one."""
    size = make_family(OptimizerConfig(family=family)).size
    theta = scale * np.random.default_rng(3).normal(size=size)
    if family == "adafactor_mlp":
        theta[:7] *= 0.05
    return theta


def tensor(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def rms_over(x: np.ndarray, axes: tuple[int, ...], floor: float) -> np.ndarray:
    return x / np.sqrt(floor + np.mean(x**2, axis=axes, keepdims=True))


def perceptron(theta: np.ndarray, inputs: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    """[..., outputs] for inputs [..., features]; the first kernel has widths[0] rows."""
    x, start = inputs, 0
    for k, (n, m) in enumerate(pairwise(widths)):
        kernel = theta[start : start + n * m].reshape(n, m)
        bias = theta[start + n * m : start + n * m + m]
        x = x @ kernel[: x.shape[-1]] + bias
        x = np.maximum(x, 0) if k < len(widths) - 2 else x
        start += n * m + m
    return x


class Moments:
    """Averages of g and of g^2, and the factored ones, at the decays of each."""

    def __init__(self, momentum: np.ndarray, rms: np.ndarray, factored: np.ndarray):
        self.decays = momentum, rms, factored
        self.m = [0.0] * 3
        self.v = [0.0]
        self.rows, self.columns = [0.0] * 3, [0.0] * 3

    def add(self, g: np.ndarray) -> tuple[np.ndarray, ...]:
        """The factor of a gradient for each decay; then all numbers of `g`'s shape."""
        momentum, rms, factored = self.decays
        self.m = [d * m + (1 - d) * g for d, m in zip(momentum, self.m)]
        self.v = [d * v + (1 - d) * g**2 for d, v in zip(rms, self.v)]
        if g.ndim < 2:
            self.rows = self.columns = [d * r + (1 - d) * (g**2 + 1e-30) for d, r in zip(factored, self.rows)]
            return tuple(1 / np.sqrt(np.maximum(r + 1e-9, 1e-9)) for r in self.rows)
        second, first = np.argsort(g.shape, kind="stable")[-2:]
        mean = lambda x, axis: np.mean(x, axis=axis, keepdims=True)  # noqa: E731
        self.rows = [d * r + (1 - d) * mean(g**2 + 1e-30, first) for d, r in zip(factored, self.rows)]
        self.columns = [d * c + (1 - d) * mean(g**2 + 1e-30, second) for d, c in zip(factored, self.columns)]
        row = [1 / np.sqrt(np.maximum(r / (mean(r, second) + 1e-9), 1e-9)) for r in self.rows]
        return tuple(a / np.sqrt(np.maximum(c, 1e-9)) for a, c in zip(row, self.columns))


def mlp_lopt(theta: np.ndarray, w: np.ndarray, gradients: list[np.ndarray]) -> list[np.ndarray]:
    decays, m, changes = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999), [0.0] * 6, []
    for t, g in enumerate(gradients):
        m = [d * x + (1 - d) * g for d, x in zip(decays, m)]
        x = [rms_over(f, tuple(range(w.ndim)), 1e-5) for f in (g, w, *m)]
        x += [np.full(w.shape, time) for time in np.tanh(t / TIMES - 1)]
        out = perceptron(theta, np.stack(x, -1), (19, 32, 32, 2))
        changes.append(-0.001 * out[..., 0] * np.exp(0.001 * out[..., 1]))
    return changes


def adafactor_mlp(theta: np.ndarray, w: np.ndarray, gradients: list[np.ndarray]) -> list[np.ndarray]:
    moved = lambda d, o: 1 - np.exp(np.log(1 - np.array(d)) + 10 * o)  # noqa: E731
    three = (0.9, 0.99, 0.999)
    moments = Moments(
        moved(three, theta[:3]),
        np.clip(moved((0.999,), theta[3:4]), 0, 1),
        np.clip(moved(three, theta[4:7]), 0, 1),
    )
    changes = []
    for t, g in enumerate(gradients):
        factor = moments.add(g)
        m, v, rows, columns = moments.m, moments.v[0], moments.rows, moments.columns
        precise = factor if g.ndim > 1 else [1 / np.sqrt(r + 1e-6) for r in rows]
        x = [g, w, *m, v, *(k / np.sqrt(v + 1e-6) for k in m), 1 / np.sqrt(v + 1e-6), *(g * f for f in factor)]
        x += [*rows, *columns, *(1 / np.sqrt(r + 1e-8) for r in rows), *(1 / np.sqrt(c + 1e-8) for c in columns)]
        x += [k * f for k, f in zip(m, precise)]
        x = [rms_over(f * np.ones(w.shape), tuple(range(w.ndim)), 1e-5) for f in x]
        x += [np.full(w.shape, time) for time in np.tanh(t / TIMES - 1)]
        out = perceptron(theta[7:], np.stack(x, -1), (39, 4, 4, 2))
        changes.append(-0.001 * out[..., 0] * np.exp(0.001 * out[..., 1]))
    return changes


def celo2(
    theta: np.ndarray, w: np.ndarray, gradients: list[np.ndarray], *, orthogonalize: bool = False
) -> list[np.ndarray]:
    three, changes = np.array([0.9, 0.99, 0.999]), []
    moments, axes = Moments(three, np.array([0.95]), three), tuple(range(w.ndim))[-2:]
    for g in gradients:
        factor = moments.add(g)
        m, v, rows, columns = moments.m, moments.v[0], moments.rows, moments.columns
        inverse = 1 / np.sqrt(v + 1e-8)
        x = [g, np.clip(g, -0.1, 0.1), w, *m, v, *(k * inverse for k in m), inverse, *(g * f for f in factor)]
        x += [g * inverse]
        if w.ndim > 1:
            x += [*rows, *columns, *(1 / np.sqrt(r + 1e-8) for r in rows), *(1 / np.sqrt(c + 1e-8) for c in columns)]
            x += [k * f for k, f in zip(m, factor)]
        x = [rms_over(f * np.ones(w.shape), axes, 1e-9) for f in x]
        d = perceptron(theta, np.stack(x, -1), (30, 8, 8, 3))[..., 0]
        if orthogonalize and w.ndim > 1:
            d = newton_schulz(d / (np.sqrt((d**2).sum((-2, -1), keepdims=True)) + 1e-8))
        changes.append(-0.001 * rms_over(d, axes, 1e-9))
    return changes


def newton_schulz(x: np.ndarray) -> np.ndarray:
    """Muon's iterations on a matrix of norm one."""
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else np.swapaxes(x, -2, -1)
    for _ in range(5):
        s = x @ np.swapaxes(x, -2, -1)
        x = 3.4445 * x + (-4.775 * s + 2.0315 * s @ s) @ x
    return x if wide else np.swapaxes(x, -2, -1)


def mlp_muon(theta: np.ndarray, w: np.ndarray, gradients: list[np.ndarray]) -> list[np.ndarray]:
    m, r, changes = [0.0] * 3, [0.0] * 3, []
    times = np.array([3, 10, 30, 100, 300, 1000, 3000, 10000, 300000])
    for t, g in enumerate(gradients):
        m = [d * x + (1 - d) * g for d, x in zip((0.9, 0.99, 0.999), m)]
        r = [d * x + (1 - d) * g**2 for d, x in zip((0.9, 0.99, 0.999), r)]
        inverse = [1 / np.sqrt(x + 1e-6) for x in r]
        matrix = 0 * g
        if w.ndim > 1:
            rows = m[0].reshape(-1, w.shape[-1]) / (np.abs(m[0]).max() + 1e-10)
            matrix = newton_schulz(rows / np.sqrt((rows**2).sum() + 1e-6)).reshape(w.shape)
        x = [g, *(a * b for a, b in zip(m, inverse)), w, *m, *r, *inverse, matrix]
        x = [rms_over(f, tuple(range(w.ndim)), 1e-5) for f in x]
        x += [np.full(w.shape, time) for time in np.tanh(t / times - 1)]
        out = perceptron(theta, np.stack(x, -1), (24, 32, 2))
        changes.append(-0.001 * out[..., 0] * np.exp(0.001 * out[..., 1]))
    return changes


REFERENCES = {"mlp_lopt": mlp_lopt, "adafactor_mlp": adafactor_mlp, "celo2": celo2, "mlp_muon": mlp_muon}


@cache
def compiled(config: OptimizerConfig):
    return jax.jit(lambda theta, *args: make_family(config).transform(theta).update(*args))


def run(config: OptimizerConfig, theta, w, gradients):
    """Changes of w for the given gradients, and the state after them; w stays."""
    state, changes = make_family(config).transform(jnp.asarray(theta)).init(w), []
    for g in gradients:
        change, state = compiled(config)(jnp.asarray(theta), g, state, w)
        changes.append(change)
    return changes, state


def check(config: OptimizerConfig, reference, shapes=SHAPES) -> None:
    theta = theta_of(config.family)
    w = {str(shape): tensor(shape, 10 + k) for k, shape in enumerate(shapes)}
    gradients = [
        {str(shape): tensor(shape, 20 + 7 * t + k) * 3.0**t for k, shape in enumerate(shapes)} for t in range(3)
    ]
    with jax.enable_x64(True):
        changes, state = run(config, theta, jax.tree.map(jnp.asarray, w), jax.tree.map(jnp.asarray, gradients))
    assert int(state.step) == 3
    for key in w:
        want = reference(theta, w[key], [g[key] for g in gradients])
        np.testing.assert_allclose([change[key] for change in changes], want, rtol=1e-9, atol=1e-15, err_msg=key)
        assert np.any(want)


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_updates_of_ranks_0_to_4_equal_the_formula(family: str) -> None:
    check(OptimizerConfig(family=family), REFERENCES[family])


@pytest.mark.heavy
def test_orthogonalized_updates_equal_the_formula() -> None:
    config = OptimizerConfig(family="celo2", orthogonalize=True)
    check(config, partial(celo2, orthogonalize=True), ((2, 3), (3, 2), (3,)))


def test_first_updates_are_the_numbers_by_hand() -> None:
    """All weights zero but the output biases d = 2, m = 1000: -0.001 * 2 * e for all; celo2's only depends on d's sign."""
    w = jnp.ones((2, 3))
    for family in ("mlp_lopt", "adafactor_mlp", "mlp_muon"):
        theta = np.zeros(make_family(OptimizerConfig(family=family)).size, np.float32)
        theta[-2:] = 2, 1000
        np.testing.assert_allclose(run(OptimizerConfig(family=family), theta, w, [w])[0][0], -0.002 * np.e, rtol=1e-6)
    theta = np.zeros(347, np.float32)
    theta[-3:] = 2, 5, 7
    np.testing.assert_allclose(run(OptimizerConfig(family="celo2"), theta, w, [w])[0][0], -0.001, rtol=1e-6)


@pytest.mark.parametrize(
    "family, size", [("mlp_lopt", 1762), ("adafactor_mlp", 197), ("celo2", 347), ("mlp_muon", 866)]
)
def test_theta_has_the_documented_size(family: str, size: int) -> None:
    made = make_family(OptimizerConfig(family=family))
    assert made.size == size == len(made.init(jax.random.key(0))) == len(made.segments)


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_and_columns_may_be_permuted(family: str) -> None:
    config, theta = OptimizerConfig(family=family), theta_of(family).astype(np.float32)
    w, g = (jnp.asarray(tensor((4, 5), seed), jnp.float32) for seed in (1, 2))
    permuted = lambda x: x[jnp.array([2, 0, 3, 1])][:, jnp.array([4, 2, 0, 1, 3])]  # noqa: E731
    changes, _ = run(config, theta, w, [g, 2 * g])
    others, _ = run(config, theta, permuted(w), [permuted(g), 2 * permuted(g)])
    np.testing.assert_allclose(permuted(changes[1]), others[1], rtol=2e-4, atol=1e-7)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "family, size", [("mlp_lopt", 3e4), ("adafactor_mlp", 100.0), ("celo2", 100.0), ("mlp_muon", 30.0)]
)
def test_rescaled_gradients_give_the_same_updates(family: str, size: float) -> None:
    """Up to the floors of the roots; celo2 while all gradients are beyond one clip (0.1) and below the other (1000)."""
    config, theta = OptimizerConfig(family=family), theta_of(family)
    with jax.enable_x64(True):
        w = jnp.asarray(tensor((4, 5), 1))
        g = jnp.asarray(np.sign(tensor((4, 5), 2)) * (1 + tensor((4, 5), 3) ** 2 / 8) * size)
        changes, others = (run(config, theta, w, [g * c, 2 * g * c])[0] for c in (1.0, 0.5))
    np.testing.assert_allclose(changes[1], others[1], rtol=0.02, atol=2e-5)
    assert np.abs(changes[1]).max() > 5e-4


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_agrees_with_finite_differences(family: str) -> None:
    """Of the mean loss of a quadratic after three updates, with respect to theta, in float64."""
    made, start = make_family(OptimizerConfig(family=family, learning_rate=0.05)), theta_of(family)
    with jax.enable_x64(True):
        scales = jnp.asarray(tensor((4, 3), 1))
        loss = lambda w: jnp.mean((scales * w["a"] + w["b"][None]) ** 2)  # noqa: E731

        @jax.jit
        @jax.value_and_grad
        def total(theta: jax.Array) -> jax.Array:
            transform = made.transform(theta)

            def step(carry, _):
                w, state = carry
                updates, state = transform.update(jax.grad(loss)(w), state, w)
                w = optax.apply_updates(w, updates)
                return (w, state), loss(w)

            w = {"a": jnp.asarray(tensor((4, 3), 2)), "b": jnp.asarray(tensor((3,), 3))}
            return jnp.mean(jax.lax.scan(step, (w, transform.init(w)), length=3)[1])

        gradient = total(start)[1]
        direction = np.random.default_rng(4).normal(size=start.size)
        direction = 1e-5 * (direction / np.linalg.norm(direction) + gradient / jnp.linalg.norm(gradient))
        difference = (total(start + direction)[0] - total(start - direction)[0]) / 2
        np.testing.assert_allclose(gradient @ direction, difference, rtol=1e-5)
        assert np.all(np.isfinite(gradient))


def test_celo2_changes_each_matrix_by_its_rate() -> None:
    config = OptimizerConfig(family="celo2", learning_rate=0.03)
    w = {"a": jnp.asarray(tensor((4, 5), 1), jnp.float32), "b": jnp.asarray(1e3 * tensor((7,), 1), jnp.float32)}
    change = run(config, theta_of("celo2").astype(np.float32), w, [w])[0][0]
    for leaf in change.values():
        np.testing.assert_allclose(jnp.sqrt(jnp.mean(leaf**2)), 0.03, rtol=1e-4)


@pytest.mark.parametrize("family, matrix, vector", [("mlp_lopt", 24, 24), ("adafactor_mlp", 16, 28), ("celo2", 16, 28)])
def test_state_has_the_documented_bytes(family: str, matrix: int, vector: int) -> None:
    """For each parameter; and 12 for each row and column where second moments are factored."""
    transform = make_family(OptimizerConfig(family=family)).transform(theta_of(family))

    def size(*shape: int) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(transform.init(jnp.ones(shape)).tensors))

    assert size(30, 20) == matrix * 600 + (0 if family == "mlp_lopt" else 12 * 50)
    assert size(30) == vector * 30


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_usable_optimizer_takes_rate_decay_and_rest(family: str) -> None:
    from common.optimizer.tensor_rule import configured

    config = OptimizerConfig(family=family)
    theta = jnp.asarray(theta_of(family), jnp.float32)
    bare = make_family(config).transform(theta)
    w = {"a": jnp.asarray(tensor((2, 3), 1), jnp.float32), "b": jnp.ones(3)}
    change = jax.jit(bare.update)(w, bare.init(w), w)[0]
    given = configured(bare, lambda step: 2.0 + step, 0.1, optax.sgd(0.5))
    updates, _ = jax.jit(given.update)(w, given.init(w), w)
    np.testing.assert_allclose(updates["a"], 2 * (change["a"] - 0.1 * w["a"]), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(updates["b"], -0.5 * w["b"], rtol=1e-6)
    plain = usable(config, theta)
    np.testing.assert_allclose(jax.jit(plain.update)(w, plain.init(w), w)[0]["a"], change["a"], rtol=1e-4, atol=1e-7)


def test_keys_of_the_families_change_no_older_digest() -> None:
    assert "layers" not in stable_tree(Config())["optimizer"]
    assert stable_tree(Config(optimizer=OptimizerConfig(family="celo2", layers=(4,))))["optimizer"]["layers"] == (4,)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"layers": (3,)}, "mlp takes optimizer.hidden"),
        ({"family": "adam", "layers": (3,)}, "adam has no layers"),
        ({"family": "celo2", "layers": (3, 0)}, "each must be at least 1"),
        ({"family": "adafactor_mlp", "orthogonalize": True}, "set optimizer.family to celo2"),
    ],
)
def test_option_of_another_family_is_named(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        OptimizerConfig(**options)


def test_orthogonal_input_is_that_of_muon_in_float32() -> None:
    """Kernels as matrices [9 C, O], tall and wide, of tiny and large numbers; zero for zero, with finite derivatives."""
    orthogonal = jax.jit(mlp_muon_family.orthogonal)
    for shape, size in (((3, 3, 4, 6), 1e-9), ((3, 3, 1, 16), 1e6), ((2, 7), 1.0)):
        x = tensor(shape, 5) * size
        rows = x.reshape(-1, shape[-1])
        want = newton_schulz(rows / np.linalg.norm(rows)).reshape(shape)
        np.testing.assert_allclose(orthogonal(jnp.asarray(x, jnp.float32)), want, atol=2e-4 if size < 1e-6 else 5e-6)
    zero = jnp.zeros((3, 2))
    value, slope = jax.jit(jax.value_and_grad(lambda x: orthogonal(x).sum()))(zero)
    assert value == 0 and np.isfinite(slope).all()
