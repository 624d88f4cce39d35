"""A task family of the user's own: the example of the docs works through every part, and mistakes are explained."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.config import Config, OptimizerConfig, TaskConfig
from common.configfile import load
from common.errors import UserError
from common.optimizer import make_family
from common.own_task import dry_step
from common.task import TaskFamily, make_task
from workers.unroll import OuterLoss, Problem, Unroll

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    """Puts sys.path and the modules of these tests back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("own_task", "mine"):
        sys.modules.pop(name, None)


def config_of(family, **task):
    return replace(Config(), task=TaskConfig(family=family, **task))


def test_docs_example_trains_its_networks(monkeypatch):
    monkeypatch.chdir(DOCS)
    config = load("own_task.toml", ["optimizer.family=adam", "optimizer.learning_rate=0.03"])
    task, family = make_task(config, None), make_family(config.optimizer)
    assert isinstance(task, TaskFamily)
    unroll = Unroll(task, family, OuterLoss(), 50)
    problem = Problem(jax.device_put(task.sample(np.random.default_rng(0), "outer_train")), jax.random.key(0))
    state = unroll.start(problem, jax.random.key(1))
    assert state.w["in"].shape == (16,)
    losses, gradient, _ = unroll.losses_and_grad(family.init(jax.random.key(0)), problem, state, 200)
    assert losses[-20:].mean() < 0.5 * losses[:5].mean()
    assert np.all(np.isfinite(gradient)) and np.any(gradient)


def test_docs_example_passes_the_dry_step(monkeypatch):
    monkeypatch.chdir(DOCS)
    said = dry_step.check_config(load("own_task.toml"))
    assert said == "own_task:family: 48 parameters in 3 arrays; the family samples and splits its data itself"


def test_docs_example_reads_options_and_splits_tasks(monkeypatch):
    monkeypatch.chdir(DOCS)
    task = make_task(load("own_task.toml", ["task.options.units=5"]), None)
    assert task.init(jax.random.key(0))["out"].shape == (5,)
    frequency = {
        split: [float(task.sample(np.random.default_rng(s), split)["frequency"]) for s in range(50)]
        for split in ("outer_train", "outer_test")
    }
    assert max(frequency["outer_train"]) < min(frequency["outer_test"])


def test_user_family_in_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from common.task import quadratic\n\ndef tasks(c): return quadratic(c.task)\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    task = make_task(config_of("mine:tasks", options={"dimension": 2}), None)
    assert task.loss({"w": jnp.ones(2)}, {"curvature": jnp.ones(2), "centre": jnp.zeros(2)}) == 1.0
    assert sys.path == [*before, str(tmp_path)]
    make_task(config_of("mine:tasks"), None)
    assert sys.path == [*before, str(tmp_path)]


def test_user_family_file_does_not_shadow_a_library(tmp_path, monkeypatch):
    (tmp_path / "statistics.py").write_text("def tasks(config): raise AssertionError('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"statistics:tasks' cannot be loaded: statistics has no 'tasks'"):
        make_task(config_of("statistics:tasks"), None)


@pytest.mark.parametrize("module", ["common", "learner.mine", "workers", "cluster.tasks"])
def test_user_family_name_of_our_package_is_rejected(module):
    with pytest.raises(UserError, match="would shadow ours"):
        make_task(config_of(f"{module}:family"), None)


@pytest.mark.parametrize(
    "source, sentence",
    [
        (None, r"cannot be loaded \(No module named 'mine'\): run where mine.py is, or install it"),
        (
            "import a_module_that_is_not_there\n",
            r"mine fails when it is imported \(ModuleNotFoundError: No module named 'a_module_that_is_not_there', mine.py:1: "
            "`import a_module_that_is_not_there`\\): check what it imports, and install what is missing",
        ),
        (
            "import numpy\nx = numpy.nothing(3)\n",
            r"mine fails when it is imported \(AttributeError: .*, mine.py:2: `x = ",
        ),
        ("other = 1\n", "cannot be loaded: mine has no 'tasks': name what it defines"),
        ("tasks = 1\n", "mine:tasks is not a function"),
        ("def tasks(config): return 7\n", r"returned int, not an outertrain.Task or .* \(mine.py:1: "),
        ("def tasks(config): return (1, 2, 3, 4)\n", "returned tuple"),
        (
            "def tasks(config):\n    return 1 / 0\n",
            r"ZeroDivisionError: division by zero \(mine.py:2: `return 1 / 0`\)",
        ),
    ],
)
def test_user_family_unusable_module_is_explained(source, sentence, tmp_path, monkeypatch):
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        make_task(config_of("mine:tasks"), None)


def family_with(loss, dtype=jnp.float32):
    """A user's family: four weights that are drawn to the task's centre."""
    return TaskFamily(
        sample=lambda random, split: {"centre": random.normal(size=4).astype(np.float32)},
        init=lambda key: {"w": jax.random.normal(key, (4,), dtype)},
        batch=lambda data, key, split: data,
        loss=loss,
    )


def squared(w, batch):
    return 2 + jnp.mean((w["w"] - batch["centre"].astype(w["w"].dtype)) ** 2)


@pytest.mark.parametrize("optimizer", [pytest.param("mlp", marks=pytest.mark.heavy), "adam", "sgd"])
@pytest.mark.parametrize("objective", [OuterLoss(), OuterLoss("valid", 2)])
def test_losses_of_bfloat16_weights_are_float32(optimizer, objective):
    """A loss near 2 has steps of 2^-6 in bfloat16: the mean over a window must not be rounded to one of them."""
    task, family = family_with(squared, jnp.bfloat16), make_family(OptimizerConfig(family=optimizer))
    unroll = Unroll(task, family, objective, segment=4)
    problem = Problem(jax.device_put(task.sample(np.random.default_rng(0), "outer_train")), jax.random.key(0))
    state = unroll.start(problem, jax.random.key(1))
    losses, gradient, after = unroll.losses_and_grad(family.init(jax.random.key(0)), problem, state, 7)
    assert losses.dtype == gradient.dtype == np.float32
    assert losses.mean() == np.mean(losses.astype(np.float64)).astype(np.float32)
    assert after.w["w"].dtype == jnp.bfloat16 and np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    "loss, found",
    [
        (lambda w, batch: squared(w, batch)[None], r"float32 of shape \(1,\)"),
        (lambda w, batch: jnp.int32(3), r"int32 of shape \(\)"),
        (lambda w, batch: 3, r"int32 of shape \(\)"),
    ],
)
def test_loss_that_is_not_a_scalar_is_explained(loss, found):
    task = family_with(loss)
    unroll = Unroll(task, make_family(OptimizerConfig(family="sgd")), OuterLoss(), segment=4)
    problem = Problem(jax.device_put(task.sample(np.random.default_rng(0), "outer_train")), jax.random.key(0))
    with pytest.raises(UserError, match=f"loss is {found}, but a floating-point scalar"):
        unroll.start(problem, jax.random.key(1))


@pytest.mark.parametrize("found", [lambda loss: loss, lambda loss: (loss, loss, loss)])
def test_stateful_family_without_a_next_state_is_explained(found):
    task = family_with(lambda w, batch, state: found(squared(w, batch)))._replace(state=lambda key: jnp.zeros(2))
    subject = dry_step.Subject("mine:tasks", task, 1)
    with pytest.raises(UserError, match=r"mine:tasks: .* must return \(loss, next state\) .*test_user_task.py:"):
        dry_step.check(subject, np.random.default_rng(0))


def test_user_family_that_imports_its_own_common_is_told_why(tmp_path, monkeypatch):
    """The module of the user is found; what it imports cannot be."""
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "waves.py").write_text("")
    (tmp_path / "mine.py").write_text("from common.waves import x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"mine.py:1 imports 'common'.*package of outertrain: rename the folder or file common"
    ):
        make_task(config_of("mine:tasks"), None)


@pytest.mark.parametrize("package", ["common", "learner", "workers"])
def test_command_with_a_replaced_package_says_so(tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{DOCS.parent}"}
    command = [sys.executable, "-c", "from cluster.cli.main import main; main(['list'])"]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"finds '{package}' in {tmp_path}/{package}/__init__.py" in done.stderr and "PYTHONPATH" in done.stderr
