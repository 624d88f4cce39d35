"""The strong baselines equal their optax originals in the unroll, and a user's optimizer is one of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tasks
from optax.contrib import MuonDimensionNumbers, muon, schedule_free_adamw, schedule_free_eval_params

from common.errors import UserError
from common.networks import autoencoder
from common.networks.autoencoder import AutoencoderSpec
from workers.clamp import clamped_gradient
from workers.evaluation import baselines
from workers.evaluation.tuning import CONSTANT, COSINE, WARM_UP, Setting
from workers.inner_step import OuterLoss, inner_batch
from workers.unroll import Unroll

STEPS, RATE, DECAY = 50, 0.003, 0.1
KERNEL = MuonDimensionNumbers((0, 1, 2), 3)
MUON = {
    "conv0/kernel": KERNEL,
    "conv1/kernel": KERNEL,
    **dict.fromkeys(("conv0/bias", "conv1/bias", "linear/kernel", "linear/bias")),
}


def original(name: str, schedule: str) -> optax.GradientTransformation:
    warmed = optax.warmup_cosine_decay_schedule(0.0, RATE, 2, STEPS)
    rate = warmed if schedule == COSINE else RATE
    if name == "muon":
        return muon(rate, weight_decay=DECAY, adam_weight_decay=DECAY, muon_weight_dimension_numbers=MUON)
    if name == "schedule_free_adamw":
        return schedule_free_adamw(RATE, warmup_steps=2, weight_decay=DECAY)
    return getattr(optax, name)(rate, weight_decay=DECAY)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("adamw", CONSTANT),
        ("adamw", COSINE),
        ("nadamw", COSINE),
        ("lion", COSINE),
        ("muon", CONSTANT),
        ("muon", COSINE),
        ("schedule_free_adamw", WARM_UP),
    ],
)
def test_baseline_equals_optax_over_fifty_steps(name: str, schedule: str) -> None:
    task, problem = tasks.task("conv"), tasks.problem("conv")
    unroll = Unroll(task, baselines.family(name, STEPS), OuterLoss(), 1)
    theta = jnp.asarray(baselines.theta(name, Setting(RATE, None, DECAY, schedule)))
    state = unroll.start(problem, jax.random.key(3))
    optimizer = original(name, schedule)
    w, memory = state.w, optimizer.init(state.w)
    clamped = clamped_gradient(task.loss, 10.0)
    inner = jax.jit(lambda w, step: clamped(w, inner_batch(task, problem, step)))
    update = jax.jit(optimizer.update)
    free = name == "schedule_free_adamw"
    for step in range(STEPS):
        _, gradient = inner(w, jnp.int32(step))
        updates, memory = update(gradient, memory, w)
        w = optax.apply_updates(w, updates)
        losses, state = unroll.forward(theta, problem, state, 1)
        shown = schedule_free_eval_params(memory, w) if free else w
        expected = inner(shown, jnp.int32(step + 1))[0]
        np.testing.assert_allclose(losses[0], expected, rtol=1e-4)
        for mine, theirs in (w, state.w), (shown, unroll.reported(state.optimizer, state.w)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), mine, theirs)
    moved = [
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(w), jax.tree.leaves(unroll.start(problem, jax.random.key(3)).w))
    ]
    assert min(moved) > 0.001


def test_muon_leaves_the_last_layer_and_biases_to_adam() -> None:
    conv = baselines.matrix_dimensions(tasks.task("conv").init(jax.random.key(0)))
    assert conv == MUON
    dense = baselines.matrix_dimensions(tasks.task("mlp").init(jax.random.key(0)))
    assert {name for name, axes in dense.items() if axes} == {"dense0_kernel"}
    assert dense["dense0_kernel"] == MuonDimensionNumbers(1, 0)
    encoder = baselines.matrix_dimensions(autoencoder.init(AutoencoderSpec(12, (4, 2)), jax.random.key(0)))
    assert {axes for axes in encoder.values() if axes} == {MuonDimensionNumbers((0,), 1)}
    assert baselines.matrix_dimensions({"w": jnp.zeros(3)}) == {"w": None}
    deep = baselines.matrix_dimensions({f"dense{k}_kernel": jnp.zeros((2, 2)) for k in range(11)})
    assert [name for name, numbers in deep.items() if numbers is None] == ["dense10_kernel"]


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str) -> str:
    (folder / f"{name}.py").write_text(f"import optax\n\n\ndef make(rate):\n    {body}\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return f"{name}:make"


def test_user_optimizer_is_a_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path, monkeypatch, "users_sign", "return optax.sign_sgd(rate)")
    optimizer = baselines.family(name).transform(jnp.asarray(baselines.theta(name, Setting(0.5))))
    w = {"w": jnp.zeros(2)}
    np.testing.assert_allclose(
        optimizer.update({"w": jnp.array([3.0, -1.0])}, optimizer.init(w), w)[0]["w"], [-0.5, 0.5]
    )


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("users_none", "return None", "returned NoneType, not an optax transformation"),
        ("users_error", "raise KeyError('x')", "failed for a learning rate .KeyError"),
    ],
)
def test_user_optimizer_that_is_none_is_explained(
    name: str, body: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=sentence):
        baselines.family(write(tmp_path, monkeypatch, name, body))


def test_user_optimizer_that_is_missing_is_explained() -> None:
    with pytest.raises(UserError, match=r"evaluation.baselines = 'no_such:make' cannot be loaded .* or install it"):
        baselines.family("no_such:make")
