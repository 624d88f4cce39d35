"""The recipe for Keras in docs/exported-optimizers.md: the updates of the optax module, and what Keras expects of an optimizer.

All but the first test need the extra `keras`:  pip install -e '.[test,keras]' && pytest -m extras tests/test_keras_recipe.py
"""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cluster.report.export import module_source
from common.config import OptimizerConfig
from common.optimizer import make_family

pytestmark = pytest.mark.filterwarnings("ignore")
PROGRESS = OptimizerConfig(family="mlp_muon", progress=True)

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 4)).astype(np.float32)
Y = X.sum(axis=1, keepdims=True)


class Variable:
    """What the recipe reads of a variable of Keras."""

    def __init__(self, value: Any):
        self.value = jnp.asarray(value)
        self.shape, self.dtype = self.value.shape, self.value.dtype.name


class StandIn:
    """What the recipe uses of `keras.optimizers.Optimizer`, whose variables are zero without an initializer."""

    def __init__(self, learning_rate: float):
        self.learning_rate, self.built = learning_rate, False

    def build(self, variables: list[Variable]) -> None:
        self.built, self.known = True, variables

    def add_variable(self, shape: Any, initializer: Any = jnp.zeros, dtype: Any = None, name: str = "") -> Variable:
        return Variable(initializer(shape, dtype=dtype))

    def _get_variable_index(self, variable: Variable) -> int:
        return self.known.index(variable)

    def assign(self, variable: Variable, value: Any) -> None:
        variable.value = value

    def assign_add(self, variable: Variable, value: Any) -> None:
        variable.value += value


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    keras: Any = ModuleType("keras")
    keras.optimizers = SimpleNamespace(Optimizer=StandIn)
    keras.saving = SimpleNamespace(register_keras_serializable=lambda package: lambda made: made)
    keras.ops = SimpleNamespace(cast=jnp.asarray)
    monkeypatch.setitem(sys.modules, "keras", keras)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Keras, the exported module of a family, the class of the recipe, and a folder."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.syspath_prepend(tmp_path)
    config = getattr(request, "param", OptimizerConfig())
    theta = 3 * np.asarray(make_family(config).init(jax.random.key(1)))
    (tmp_path / "my_optimizer.py").write_text(module_source(config, theta, "here", "my_optimizer"))
    page = (Path(__file__).parent.parent / "docs/exported-optimizers.md").read_text()
    [recipe] = re.findall(r"```python\n(.*?)\n```", page, re.DOTALL)
    make = "my_optimizer.optimizer(total_steps=30)" if config.progress else "my_optimizer.optimizer()"
    names: dict[str, Any] = {}
    with jax.numpy_rank_promotion("allow"):  # JAX's default: the layers of Keras rely on it
        exec(compile(recipe.replace("my_optimizer.optimizer()", make), "recipe.py", "exec"), names)
        yield SimpleNamespace(
            keras=names["keras"],
            optax=eval(make, names),
            make=names["LearnedOptimizer"],
            folder=tmp_path,
        )
    del sys.modules["my_optimizer"]


@pytest.mark.parametrize("scene", [OptimizerConfig(), PROGRESS], ids=["mlp", "progress"], indirect=True)
def test_recipe_without_keras_updates_as_optax(stand_in: None, scene: Any) -> None:
    variables = [Variable(x) for x in (Y[:3], X[0])]
    w = [variable.value for variable in variables]
    optimizer, tx = scene.make(learning_rate=0.5), optax.chain(scene.optax, optax.scale(0.5))
    optimizer.build(variables)
    state = tx.init(w)
    for k in range(3):
        updates, state = tx.update([x - k for x in w], state, w)
        for variable, x in zip(variables, w, strict=True):
            optimizer.update_step(x - k, variable, 0.5)
        w = optax.apply_updates(w, updates)
        for variable, x in zip(variables, w, strict=True):
            np.testing.assert_allclose(variable.value, x, rtol=1e-5)


def compiled(scene: Any, **options: Any) -> Any:
    """A dense network with one hidden layer, the same weights at each call."""
    scene.keras.utils.set_random_seed(0)
    layers = [scene.keras.layers.Dense(8, activation="relu"), scene.keras.layers.Dense(1)]
    model = scene.keras.Sequential([scene.keras.Input((4,)), *layers])
    model.compile(optimizer=scene.make(**options), loss="mse")
    return model


def losses(model: Any, steps: int, **options: Any) -> list[float]:
    """Each step takes all rows."""
    return model.fit(X, Y, batch_size=64, epochs=steps, shuffle=False, verbose=0, **options).history["loss"]


@pytest.mark.extras
@pytest.mark.parametrize(
    "scene",
    [
        *(OptimizerConfig(), OptimizerConfig(family="adafactor_mlp")),
        *(OptimizerConfig(family="celo2", learning_rate=0.01), PROGRESS),
    ],
    ids=["mlp", "adafactor_mlp", "celo2", "progress"],
    indirect=True,
)
def test_keras_training_equals_that_of_optax(scene: Any) -> None:
    model = compiled(scene, learning_rate=0.5)
    w = [jnp.asarray(v.numpy()) for v in model.trainable_variables]
    start, tx = w, optax.chain(scene.optax, optax.scale(0.5))
    state, expected = tx.init(w), []

    def loss(w: Any) -> jax.Array:
        return jnp.mean((jax.nn.relu(X @ w[0] + w[1]) @ w[2] + w[3] - Y) ** 2)

    @jax.jit
    def step(w: Any, state: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(w)
        updates, state = tx.update(gradient, state, w)
        return optax.apply_updates(w, updates), state, value

    for _ in range(30):
        w, state, value = step(w, state)
        expected.append(float(value))
    np.testing.assert_allclose(losses(model, 30), expected, rtol=1e-5)
    for variable, x, first in zip(model.trainable_variables, w, start, strict=True):
        np.testing.assert_allclose(variable.numpy(), x, atol=1e-5)
        assert first.ndim == 1 or np.abs(x - first).max() > 1e-3  # adafactor_mlp leaves a single 0 as it is


@pytest.mark.extras
def test_keras_model_that_is_saved_and_loaded_continues(scene: Any) -> None:
    model = compiled(scene, learning_rate=0.5, weight_decay=0.01, name="mine")
    losses(model, 3)
    model.save(scene.folder / "model.keras")
    loaded = scene.keras.models.load_model(scene.folder / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert losses(loaded, 3) == losses(model, 3)


@pytest.mark.extras
def test_keras_options_change_the_updates_as_elsewhere(scene: Any) -> None:
    model = compiled(scene)
    first = losses(model, 2)
    model.optimizer.learning_rate = 0.0
    assert losses(model, 2)[0] == losses(model, 1)[0] < first[0]
    rates = scene.keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 0.0])
    scheduled = losses(compiled(scene, learning_rate=rates), 5)
    assert scheduled[0] > scheduled[2] == scheduled[4]
    accumulated = losses(compiled(scene, gradient_accumulation_steps=2), 4)
    assert accumulated[0] == accumulated[1] != accumulated[2] == accumulated[3]


@pytest.mark.extras
def test_keras_variables_of_any_shape_are_updated_or_left_alone(scene: Any) -> None:
    shapes = ((), (7,), (3, 5), (2, 3, 4, 5), (0,))
    variables = [scene.keras.Variable(np.ones(shape, np.float32)) for shape in shapes]
    half, still = (scene.keras.Variable(np.ones(3), dtype="bfloat16") for _ in range(2))
    optimizer = scene.make(clipnorm=1.0)
    optimizer.apply(
        [*(jnp.ones(shape) for shape in shapes), jnp.ones(3, jnp.bfloat16), None], [*variables, half, still]
    )
    for variable, shape in zip(variables, shapes, strict=True):
        assert variable.shape == shape and (not variable.numpy().size or np.all(variable.numpy() != 1))
    slots = [{slot.dtype for slot in optimizer.slots[k]} for k in (5, 6)]
    assert half.dtype == "bfloat16" and slots == [{"int32", "float32"}] * 2
    assert not any(np.any(slot.numpy()) for slot in optimizer.slots[6]) and np.all(np.asarray(still.value, float) == 1)
