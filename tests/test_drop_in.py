"""The exported optimizer bears what optimizers of optax bear. Its tests of aliases, sharding and wrappers are the model."""

import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cluster.report.export import module_source
from common import pretrained
from common.config import OptimizerConfig
from common.optimizer import make_family, mlp
from common.pretrained import Pretrained

pytestmark = pytest.mark.heavy
PER_TENSOR = ("mlp_lopt", "adafactor_mlp", "celo2", "mlp_muon")
FAMILIES = ("mlp", "adam", "rmsprop", "sgd", "adam8", *PER_TENSOR)
DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32)


def shipped() -> Pretrained:
    path = pretrained.find("small-conv-train")
    assert path is not None
    return pretrained.load(path)


def exported(folder: Path, family: str) -> ModuleType:
    learned = shipped()
    if family != "mlp":
        config = OptimizerConfig(family=family)
        learned = Pretrained(np.asarray(make_family(config).init(jax.random.key(0))), config, "initial")
    path = folder / f"exported_{family}.py"
    path.write_text(module_source(learned.optimizer, learned.theta, learned.origin, path.stem))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # pickle looks the state's class up by its module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    folder = tmp_path_factory.mktemp("exported")
    return {family: exported(folder, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def tx(modules: dict[str, ModuleType]) -> optax.GradientTransformationExtraArgs:
    """Compiled, so that tests with equal shapes share the work; those of all families take it as it is, too."""
    bare = modules["mlp"].optimizer()
    return optax.GradientTransformationExtraArgs(bare.init, jax.jit(bare.update))


def weights(dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    return {"a": jnp.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3), "b": jnp.asarray(0.5, dtype)}


def types(tree: Any) -> Any:
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x), jnp.asarray(x).weak_type), tree)


def equal(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one: Any, other: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-9), one, other)


def finite(tree: Any) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_step_may_donate_a_fresh_state(modules: dict[str, ModuleType], family: str) -> None:
    tx = modules[family].optimizer()

    def step(w: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.tree.map(lambda x: 2 * x, w), state, w)
        return optax.apply_updates(w, updates), state

    w = weights()
    w, state = jax.jit(step, donate_argnums=(0, 1))(w, tx.init(w))
    assert finite(w) and finite(state)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_state_and_update_types_are_stable(modules: dict[str, ModuleType], family: str, dtype: Any) -> None:
    tx, w = modules[family].optimizer(), weights(dtype)
    step, state = jax.jit(tx.update), tx.init(w)
    assert types(jax.jit(tx.init)(w)) == types(state)
    for _ in range(3):
        updates, after = step(jax.tree.map(lambda x: x / 2, w), state, w)
        assert types(updates) == types(w) and types(after) == types(state)
        state = after
    assert step._cache_size() == 1  # type: ignore[attr-defined]


def test_float64_parameters_have_a_float64_state(tx: optax.GradientTransformationExtraArgs) -> None:
    with jax.enable_x64(True):
        w = {"a": jnp.linspace(-1, 1, 6, dtype=jnp.float64), "b": jnp.ones(2, jnp.float32)}
        state = tx.init(w)
        assert state.momentum["a"].dtype == jnp.float64 and state.momentum["b"].dtype == jnp.float32
        updates, after = jax.jit(tx.update)(w, state, w)
        assert types(updates) == types(w) and types(after) == types(state)


@pytest.mark.parametrize("of_gradients", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_state_keeps_its_type_for_gradients_of_another(
    tx: optax.GradientTransformationExtraArgs, of_gradients: Any
) -> None:
    with jax.enable_x64(True):
        w, gradients = weights(jnp.float32), weights(of_gradients)
        updates, state = jax.jit(tx.update)(gradients, tx.init(w), w)
        assert types(updates) == types(gradients) and types(state) == types(tx.init(w))


def test_half_precision_update_is_that_of_float32_rounded(tx: optax.GradientTransformationExtraArgs) -> None:
    half = weights(jnp.bfloat16)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    rounded = jax.tree.map(lambda u: u.astype(jnp.bfloat16), tx.update(wide, tx.init(wide), wide)[0])
    equal(tx.update(half, tx.init(half), half)[0], rounded)


def test_strict_dtype_promotion_is_respected(tx: optax.GradientTransformationExtraArgs) -> None:
    with jax.numpy_dtype_promotion("strict"):
        for dtype in DTYPES:
            tx.update(weights(dtype), tx.init(weights(dtype)), weights(dtype))


def test_updates_are_those_of_the_engine(tx: optax.GradientTransformationExtraArgs) -> None:
    ours = mlp.transform(jnp.asarray(shipped().theta))
    w = {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 2, 4)), **weights()}
    state, expected_state = tx.init(w), ours.init(w)
    for k in range(4):
        gradients = jax.tree.map(lambda x, k=k: 2 * x - k, w)
        updates, state = jax.jit(tx.update)(gradients, state, w)
        expected, expected_state = jax.jit(ours.update)(gradients, expected_state, w)
        close(updates, expected)
        w = optax.apply_updates(w, updates)


def test_quadratic_loss_falls_and_nothing_recompiles(tx: optax.GradientTransformationExtraArgs) -> None:
    target = jnp.linspace(-1, 1, 20)

    @jax.jit
    def step(w: jax.Array, state: Any) -> tuple[jax.Array, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(lambda w: jnp.mean((w - target) ** 2))(w)
        updates, state = tx.update(gradient, state, w)
        return optax.apply_updates(w, updates), state, loss

    w, losses = jnp.zeros(20), []
    state = tx.init(w)
    for _ in range(300):
        w, state, loss = step(w, state)
        losses.append(float(loss))
    assert losses[-1] < 0.1 * losses[0] and step._cache_size() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("empty", [{}, [], (), {"a": None}, {"a": jnp.zeros((0, 3))}, {"a": optax.MaskedNode()}])
def test_empty_trees_and_leaves_have_empty_updates(tx: optax.GradientTransformationExtraArgs, empty: Any) -> None:
    updates, state = jax.jit(tx.update)(empty, tx.init(empty), empty)
    equal(updates, empty)
    assert int(state.step) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_leaves_keep_their_types_and_a_finite_state(modules: dict[str, ModuleType], family: str) -> None:
    tx, empty = modules[family].optimizer(), [jnp.zeros(shape) for shape in ((0,), (0, 3), (3, 0), (2, 0, 3))]
    w = {**weights(), "empty": empty}
    updates, state = jax.jit(tx.update)(w, tx.init(w), w)
    assert types(updates) == types(w) and types(state) == types(tx.init(w))
    assert finite(updates) and finite(state)


@pytest.mark.parametrize("family", FAMILIES)
def test_leaf_without_gradient_is_left_alone(modules: dict[str, ModuleType], family: str) -> None:
    tx, w = modules[family].optimizer(), weights()
    if family != "mlp":
        w = {**w, "b": None}  # as in optax, where a missing gradient needs a missing parameter
    updates, state = tx.update({**w, "b": None}, tx.init(w), w)
    assert updates["b"] is None
    equal(updates["a"], tx.update({"a": w["a"]}, tx.init({"a": w["a"]}), {"a": w["a"]})[0]["a"])
    tx.update({**w, "b": None}, state, w)


def test_masked_leaves_pass_and_the_others_are_updated(tx: optax.GradientTransformationExtraArgs) -> None:
    w = {**weights(), "count": jnp.int32(3)}
    masked = optax.masked(tx, {"a": True, "b": False, "count": False})
    updates, _ = jax.jit(masked.update)(w, masked.init(w), w)
    equal({**updates, "a": 0}, {**w, "a": 0})
    close(updates["a"], tx.update(w["a"], tx.init(w["a"]), w["a"])[0])


@pytest.mark.parametrize("size", [1e12, 1e19, 1e30, 3e38, 1e-38, 1e-45])
@pytest.mark.parametrize("outlier", [False, True])
def test_extreme_finite_gradients_give_finite_updates(
    tx: optax.GradientTransformationExtraArgs, size: float, outlier: bool
) -> None:
    w = jnp.linspace(-1, 1, 50)
    extreme = w.at[7].set(size) if outlier else jnp.sign(w) * size
    step, state = jax.jit(tx.update), tx.init(w)
    for k in range(20):
        updates, state = step(extreme if k < 3 else w, state, w)
        assert finite(updates) and finite(state) and float(jnp.abs(updates).max()) < 1
    assert float(jnp.abs(updates).max()) > 0


@pytest.mark.parametrize("size", [1e4, 1e8, 1e12, 1e17])
def test_large_gradients_give_the_updates_of_exact_arithmetic(
    tx: optax.GradientTransformationExtraArgs, size: float
) -> None:
    """In float32 the square of an input overflows from 4e9; the engine's float64 computes the formula as it stands."""
    w = jnp.linspace(-1, 1, 50)
    update, _ = tx.update(w * size, tx.init(w), w)
    with jax.enable_x64(True):
        exact, wide = mlp.transform(jnp.asarray(shipped().theta)), w.astype(jnp.float64)
        expected, _ = jax.jit(exact.update)(wide * size, exact.init(wide), wide)
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_non_finite_gradients_reach_apply_if_finite(tx: optax.GradientTransformationExtraArgs, bad: float) -> None:
    w = weights()
    gradients = {**w, "b": jnp.float32(bad)}
    assert not finite(tx.update(gradients, tx.init(w), w)[0])
    careful = optax.apply_if_finite(tx, 5)
    updates, state = careful.update(gradients, careful.init(w), w)
    equal(updates, jax.tree.map(jnp.zeros_like, w))
    equal(state.inner_state, tx.init(w))


def test_zero_gradients_for_5000_steps_stay_finite(tx: optax.GradientTransformationExtraArgs) -> None:
    def body(_: int, carried: tuple[Any, Any]) -> tuple[Any, Any]:
        w, state = carried
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, w), state, w)
        return optax.apply_updates(w, updates), state

    w = weights()
    _, state = tx.update(w, tx.init(w), w)
    after, state = jax.jit(lambda w, state: jax.lax.fori_loop(0, 5000, body, (w, state)))(w, state)
    assert finite(after) and finite(state) and int(state.step) == 5001
    assert all(float(jnp.abs(leaf).max()) < 100 for leaf in jax.tree.leaves(after))


def test_step_counter_saturates(tx: optax.GradientTransformationExtraArgs) -> None:
    w, last = weights(), jnp.iinfo(jnp.int32).max
    updates, state = tx.update(w, tx.init(w)._replace(step=jnp.int32(last)), w)
    assert int(state.step) == last and finite(updates)


def test_vmap_updates_members_of_an_ensemble_separately(tx: optax.GradientTransformationExtraArgs) -> None:
    members = [jax.tree.map(lambda x, k=k: x + k, weights()) for k in range(3)]
    ensemble = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    state = jax.vmap(tx.init)(ensemble)
    assert state.momentum["a"].shape == (3, 5, 2, 3)
    updates, _ = jax.jit(jax.vmap(tx.update))(ensemble, state, ensemble)
    for k, member in enumerate(members):
        close(jax.tree.map(lambda u, k=k: u[k], updates), tx.update(member, tx.init(member), member)[0])


def test_stacked_layers_by_the_documented_recipe(tx: optax.GradientTransformationExtraArgs) -> None:
    per_layer = optax.GradientTransformation(jax.vmap(tx.init), jax.vmap(tx.update))
    layers = [jax.random.normal(jax.random.key(k), (2, 3)) * (k + 1) for k in range(4)]
    w = {"layers": jnp.stack(layers), "head": jnp.linspace(-1, 1, 4)}
    both = optax.multi_transform({"layers": per_layer, "head": tx}, {"layers": "layers", "head": "head"})
    state = both.init(w)
    for _ in range(2):
        updates, state = jax.jit(both.update)(w, state, w)
    for k, layer in enumerate(layers):
        alone = tx.init(layer)
        for _ in range(2):
            expected, alone = tx.update(layer, alone, layer)
        close(updates["layers"][k], expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_wrappers_of_optax_pass_the_updates_on(modules: dict[str, ModuleType], family: str) -> None:
    make, w = modules[family].optimizer, weights()
    bare = make()
    tx = optax.GradientTransformationExtraArgs(bare.init, jax.jit(bare.update))
    expected, _ = tx.update(w, tx.init(w), w)
    wrappers: dict[str, Any] = {
        "chain": optax.chain(optax.clip_by_global_norm(1e9), tx, optax.scale(1.0)),
        "multi_transform": optax.multi_transform({"x": tx, "y": tx}, {"a": "x", "b": "y"}),
        "partition": optax.partition({"x": tx}, {"a": "x", "b": "x"}),
        "inject_hyperparams": optax.inject_hyperparams(make)(),
        "masked": optax.masked(tx, {"a": True, "b": True}),
        "apply_if_finite": optax.apply_if_finite(tx, 3),
        "flatten": optax.named_chain(("learned", tx)),
        "MultiSteps": optax.MultiSteps(tx, every_k_schedule=1),
    }
    states = {name: wrapped.init(w) for name, wrapped in wrappers.items()}
    step = jax.jit(
        lambda states, w: {name: wrapped.update(w, states[name], w)[0] for name, wrapped in wrappers.items()}
    )
    for name, updates in step(states, w).items():
        assert jax.tree.structure(updates) == jax.tree.structure(w), name
        close(updates, expected)


def test_rate_is_a_hyper_parameter_that_can_be_injected(modules: dict[str, ModuleType]) -> None:
    make, w = modules["celo2"].optimizer, weights()
    injected = optax.inject_hyperparams(make)(rate=0.5, weight_decay=0.0)
    state = injected.init(w)
    state.hyperparams["rate"] = jnp.float32(0.25)
    updates, _ = jax.jit(injected.update)(w, state, w)
    expected = make(rate=0.25)
    close(updates, expected.update(w, expected.init(w), w)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_accumulated_gradients_update_every_fourth_step(modules: dict[str, ModuleType], family: str) -> None:
    wrapped, w = optax.MultiSteps(modules[family].optimizer(), every_k_schedule=4), weights(jnp.bfloat16)
    state, step = wrapped.init(w), jax.jit(wrapped.update)
    for k in range(8):
        updates, state = step(w, state, w)
        assert bool((updates["a"] != 0).any()) == (k % 4 == 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_extra_arguments_and_map_params_work(modules: dict[str, ModuleType], family: str) -> None:
    tx, w = modules[family].optimizer(), weights()
    state = tx.init(w)
    equal(optax.tree_utils.tree_map_params(tx, lambda leaf: leaf, state), state)
    close(tx.update(w, state, w, value=1.0, anything=2)[0], tx.update(w, state, w)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_abstract_parameters_have_a_state(modules: dict[str, ModuleType], family: str) -> None:
    tx, w = modules[family].optimizer(), weights(jnp.bfloat16)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), w)
    assert types(tx.init(abstract)) == types(tx.init(w))
    shapes = jax.eval_shape(tx.update, w, tx.init(w), w)[0]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), w)


def test_python_and_numpy_numbers_are_leaves(modules: dict[str, ModuleType]) -> None:
    tx = modules["mlp"].optimizer()
    w = {"a": 0.5, "b": np.linspace(-1, 1, 3, dtype=np.float32)}
    updates, state = tx.update({"a": 1.0, "b": w["b"]}, tx.init(w), w)
    assert finite(updates) and finite(state) and updates["b"].shape == (3,)


@pytest.mark.parametrize(
    "leaf, sentence",
    [
        (jnp.arange(3), "not int32: exclude such leaves with optax.masked"),
        (jnp.ones(3, bool), "not bool: exclude"),
        (jnp.ones(3, jnp.complex64), "not complex64: wrap the optimizer in optax.contrib.split_real_and_imaginary"),
    ],
)
def test_leaves_that_are_not_real_are_named(
    tx: optax.GradientTransformationExtraArgs, leaf: jax.Array, sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        tx.init({"a": leaf})
    with pytest.raises(TypeError, match=sentence):
        tx.update(leaf, tx.init(jnp.ones(3)), jnp.ones(3))


def test_complex_parameters_train_by_the_advised_wrapper(tx: optax.GradientTransformationExtraArgs) -> None:
    wrapped, w = optax.contrib.split_real_and_imaginary(tx), jnp.asarray([1 + 2j, 3 - 1j], jnp.complex64)
    updates, _ = jax.jit(wrapped.update)(w, wrapped.init(w), w)
    assert updates.dtype == jnp.complex64 and finite(updates)


def test_missing_or_mismatched_parameters_are_named(tx: optax.GradientTransformationExtraArgs) -> None:
    with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))
    with pytest.raises(ValueError, match=r"gradient of shape \(1,\) for a parameter of shape \(3,\)"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(3)), jnp.ones(3))


@pytest.mark.parametrize("store", [lambda tree: pickle.loads(pickle.dumps(tree)), None], ids=["pickle", "arrays"])
def test_training_resumed_from_a_checkpoint_is_the_same(
    tx: optax.GradientTransformationExtraArgs, store: Callable[[Any], Any] | None
) -> None:
    w, step = weights(), jax.jit(tx.update)
    _, state = step(w, tx.init(w), w)
    leaves, tree = jax.tree.flatten(tx.init(w))
    saved = [np.array(leaf) for leaf in jax.tree.leaves(state)]
    restored = store(state) if store else tree.unflatten(saved)
    equal(step(w, restored, w), step(w, state, w))
    assert len(leaves) == len(saved)


def test_sharded_state_follows_the_parameters(tmp_path: Path) -> None:
    """Eight devices in a process of its own; the program asserts."""
    exported(tmp_path, "mlp")
    program = Path(__file__).parent / "helpers" / "sharded_training.py"
    subprocess.run([sys.executable, program, str(tmp_path)], check=True, timeout=200)
