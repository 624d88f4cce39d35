"""Tasks of a user's own model: what they compute, how their rows are split, and what their mistakes are answered with."""

import doctest
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.config import Config, OptimizerConfig, TaskConfig
from common.errors import UserError
from common.optimizer import make_family
from common.own_task import dry_step
from common.own_task import task as task_module
from common.own_task.rows import checked, open_rows
from common.own_task.task import Task
from common.task import open_task
from common.task_family import counted_from
from workers.unroll import OuterLoss, Problem, Unroll

X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
DATA = {"x": X, "y": X.sum(axis=1)}
CONFIG = replace(Config(), task=TaskConfig(family="mine:task", batch_size=8))


def init(key):
    return {"w": jax.random.normal(key, (3,))}


def loss(params, batch):
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def check(task):
    return dry_step.check(dry_step.Subject("mine:task", task.family(CONFIG), 8), np.random.default_rng(0))


def unrolled(task, steps=40):
    """The losses of a task under sgd, its gradient, and the last state."""
    family, own = make_family(OptimizerConfig(family="sgd", learning_rate=0.05, momentum=0.0)), task.family(CONFIG)
    unroll = Unroll(own, family, OuterLoss("valid", 1), segment=20)
    problem = Problem(jax.device_put(own.sample(np.random.default_rng(0), "outer_train")), jax.random.key(0))
    theta = family.init(jax.random.key(0))
    return unroll.losses_and_grad(theta, problem, unroll.start(problem, jax.random.key(1)), steps)


def test_task_example_runs():
    results = doctest.testmod(task_module)
    assert results.attempted == 3 and results.failed == 0


@pytest.mark.heavy
def test_task_trains_in_the_unroll():
    losses, gradient, state = unrolled(Task(init, loss, DATA))
    assert losses[-1] < 0.05 * losses[0] and np.any(gradient)
    np.testing.assert_allclose(state.w["w"], np.ones(3), atol=0.2)


def test_run_is_resumed_with_the_same_data_only(tmp_path, monkeypatch):
    module = "import numpy as np, outertrain, test_own_task as t\n"
    module += "task = outertrain.Task(t.init, t.loss, {'x': t.X * np.float32(SCALE), 'y': t.DATA['y']})\n"
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for k, scale in enumerate(("1", "1", "1.01")):
        (tmp_path / f"rows_{k}.py").write_text(module.replace("SCALE", scale))
        digests.append(open_task(replace(CONFIG, task=replace(CONFIG.task, family=f"rows_{k}:task"))).fingerprint)
    assert digests[0] == digests[1] != digests[2] and "" not in digests
    assert open_rows(lambda random: DATA, seed=0).fingerprint == ""
    assert open_rows(DATA, seed=0).fingerprint == digests[0] != open_rows({"x": X}, seed=0).fingerprint


def test_rows_are_split_without_overlap():
    rows = open_rows({"row": np.arange(101)}, seed=0)
    seen = {}
    for outer_split in ("outer_train", "outer_test"):
        tasks = [rows.task(np.random.default_rng(seed), outer_split) for seed in range(3)]
        for task in tasks:
            parts = [task[split]["row"] for split in ("train", "valid", "test")]
            assert [len(part) for part in parts] == [35, 8, 7]
            assert len(set(np.concatenate(parts))) == 50
        assert not np.array_equal(tasks[0]["train"]["row"], tasks[1]["train"]["row"])
        seen[outer_split] = set(np.concatenate(parts))
    assert not seen["outer_train"] & seen["outer_test"]


def test_npz_and_function_give_the_same_kinds_of_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", **DATA)
    arrays, file = (open_rows(data, 3).task(np.random.default_rng(1), "outer_test") for data in (DATA, "data.npz"))
    jax.tree.map(np.testing.assert_array_equal, arrays, file)
    drawn = open_rows(lambda random: {"x": random.normal(size=(20, 2))}, 0).task(
        np.random.default_rng(0), "outer_train"
    )
    assert [len(drawn[split]["x"]) for split in ("train", "valid", "test")] == [14, 3, 3]


def rows_of_the_split(random, rows, outer_split="none"):
    return np.full(rows, len(outer_split))


@pytest.mark.parametrize(
    "data, split",
    [
        (lambda random, outer_split: rows_of_the_split(random, 20, outer_split), "outer_test"),
        (lambda random, half: rows_of_the_split(random, 20, half), "outer_test"),
        (lambda random, rows=20: rows_of_the_split(random, rows), "none"),
        (lambda random, *others, rows=20, **options: rows_of_the_split(random, rows, *others), "none"),
        (lambda random, rows=20, outer_split="": rows_of_the_split(random, rows, outer_split), "outer_test"),
        (partial(rows_of_the_split, rows=20), "outer_test"),
    ],
)
def test_function_of_the_data_is_given_the_split_alone(data, split):
    task = open_rows(data, 0).task(np.random.default_rng(0), "outer_test")
    assert len(task["train"]) == 14 and task["train"][0] == len(split)


@pytest.mark.parametrize("kept, wide", [("int32", "int64"), ("uint32", "uint64"), ("float32", "float64")])
def test_rows_of_64_bits_that_fit_into_32_are_accepted(kept, wide):
    limits = (np.finfo if kept == "float32" else np.iinfo)(kept)
    rows = np.array([limits.min, limits.max] * 50, wide)
    assert checked({"x": rows, "empty": np.zeros((100, 0), wide)}, "the data")["x"] is rows
    np.testing.assert_array_equal(jnp.asarray(rows), rows)


def test_key_is_given_in_training_only():
    def dropout(params, batch, key):
        return loss(params, batch) if key is None else loss(params, batch) + 100 + jax.random.uniform(key)

    own = Task(init, dropout, DATA).family(CONFIG)
    data, w = own.sample(np.random.default_rng(0), "outer_train"), init(jax.random.key(0))
    values = [own.loss(w, own.batch(data, jax.random.key(k), split)) for k in range(2) for split in ("train", "valid")]
    assert values[0] > 100 > values[1] and values[2] > 100 > values[3] and values[0] != values[2]


@pytest.mark.heavy
def test_state_is_carried_and_read_in_evaluation():
    def normalized(params, batch, key, state):
        mean = jnp.mean(batch["x"], axis=0)
        shown = state["mean"] if key is None else mean
        after = {"mean": 0.9 * state["mean"] + 0.1 * mean} if key is not None else state
        return jnp.mean(((batch["x"] - shown[None]) @ params["w"] - batch["y"]) ** 2), after

    task = Task(lambda key: (init(key), {"mean": jnp.full(3, 5.0)}), normalized, DATA)
    assert "3 parameters in 1 arrays" in check(task)
    losses, gradient, state = unrolled(task)
    assert np.all(np.abs(state.model["mean"]) < 1) and losses[-1] < 0.2 * losses[0] and np.all(np.isfinite(gradient))


def test_leaves_that_are_no_arrays_are_constants():
    def made(key):
        return {"w": jax.random.normal(key, (3,)), "activation": jnp.tanh, "rate": 0.5, "frozen": True}

    def own(params, batch):
        assert params["frozen"] is True
        return jnp.mean(params["rate"] * params["activation"](batch["x"] @ params["w"]) ** 2)

    task = Task(made, own, DATA)
    check(task)
    assert set(jax.tree.leaves(task.family(CONFIG).init(jax.random.key(0)))[0].shape) == {3}


def test_lower_bound_is_subtracted():
    def shifted(params, batch):
        return loss(params, batch) - 7

    with pytest.raises(UserError, match=r"the loss is -\d.* must not be negative.*lower_bound.*test_own_task.py:\d+"):
        check(Task(init, lambda params, batch: 0 * loss(params, batch) - 7, DATA))
    plain, bounded = Task(init, loss, DATA).family(CONFIG), Task(init, shifted, DATA, lower_bound=-7).family(CONFIG)
    batch = plain.batch(plain.sample(np.random.default_rng(0), "outer_train"), jax.random.key(0), "train")
    w = init(jax.random.key(0))
    assert float(bounded.loss(w, batch)) == pytest.approx(float(plain.loss(w, batch)), rel=1e-5)


@pytest.mark.parametrize("save, keep", [(np.savez, 0.5), (np.savez_compressed, 1.0)])
def test_damaged_file_of_rows_is_a_sentence(tmp_path, save, keep):
    """Truncated, or with one byte changed."""
    file = tmp_path / "rows.npz"
    save(file, x=np.random.default_rng(0).normal(size=(1000, 3)))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content[: round(keep * len(content))])
    with pytest.raises(UserError, match=r"rows.npz' cannot be read as .npz"):
        open_rows(str(file), 0)


def test_loss_at_its_lower_bound_is_zero_whatever_its_rounding():
    counted = [float(counted_from(-1.0, np.float32(loss))) for loss in (-1 - 2e-7, -1, -0.5)]
    assert counted == [0, 0, 0.5]
    assert float(counted_from(-1.0, np.float32(-1.1))) == pytest.approx(-0.1, rel=1e-5)
    assert np.isnan(counted_from(-1.0, np.float32(np.nan)))


def test_check_says_sizes_and_splits():
    said = check(Task(init, loss, DATA))
    assert said == (
        "mine:task: 3 parameters in 1 arrays; 100 rows, half of which train the optimizer while the other half test it; "
        "each task divides its rows at random into 35 train, 8 valid, 7 test"
    )


# The user's mistakes. Each function holds its own, and the sentence must show the line marked `# here`.


def wrong_shape(params, batch):
    return jnp.mean(batch["x"] @ params["w"][:2])  # here


def wrong_dtype(params, batch):
    return jnp.sum(batch["x"] > 0)  # here


def no_scalar(params, batch):
    errors = batch["x"] @ params["w"] - batch["y"]
    return errors**2  # here


def nothing(params, batch):  # here
    loss(params, batch)


def with_extras(params, batch):
    return loss(params, batch), {"size": 3}  # here


def always_keyed(params, batch, key):
    return loss(params, batch) * jax.random.uniform(key)  # here


def infinite(params, batch):
    return jnp.mean(jnp.abs(jnp.log(0 * batch["x"] @ params["w"])))  # here


def infinite_gradient(params, batch):
    return jnp.sqrt(jnp.sum((0 * params["w"]) ** 2))  # here


def unknown_key(params, batch):
    return jnp.mean(batch["label"])  # here


def unknown_parameter(params, batch):
    return jnp.mean(params["weights"])  # here


def python_value(params, batch):
    if jnp.sum(params["w"]) > 0:  # here
        return 1.0
    return 0.0


def raises(params, batch):
    raise RuntimeError("the cat is on the keyboard")  # here


def growing_state(params, batch, state):
    return loss(params, batch), jnp.concatenate([state, state])  # here


def no_state(params, batch, state):
    return loss(params, batch)  # here


def too_many(params, batch, labels, epoch):
    return 0.0  # here


def integer_params(key):
    return {"w": jnp.zeros(3), "count": jnp.zeros((), jnp.int32)}  # here


def no_params(key):
    return {}  # here


def init_raises(key):
    return {"w": jnp.zeros((3, -1))}  # here


def only_params(key):
    return {"w": jnp.zeros(3)}  # here


def ragged(random):
    return {"x": np.zeros((int(random.integers(20, 2000)), 3)), "y": np.zeros(3)}


MISTAKES = {
    "shape": (Task(init, wrong_shape, DATA), r"loss fails: TypeError: .*\(3,\) and \(2,\)"),
    "dtype": (Task(init, wrong_dtype, DATA), r"the loss is int32 of shape \(\), .* jnp.mean"),
    "not a scalar": (Task(init, no_scalar, DATA), r"the loss is float32 of shape \(8,\)"),
    "nothing returned": (Task(init, nothing, DATA), "the loss is None, but a floating-point scalar is needed"),
    "two things returned": (
        Task(init, with_extras, DATA),
        "the loss is a tuple, .* alone unless the loss takes a state",
    ),
    "key in evaluation": (
        Task(init, always_keyed, DATA),
        "loss, called without a key as in evaluation, fails: TypeError",
    ),
    "not finite": (Task(init, infinite, DATA), "the loss is (inf|nan) at the initial weights"),
    "gradient not finite": (Task(init, infinite_gradient, DATA), r"with respect to \['w'\] is not finite"),
    "unknown key": (Task(init, unknown_key, DATA), "there is no key 'label'; the batch has the keys 'x', 'y'"),
    "unknown parameter": (
        Task(init, unknown_parameter, DATA),
        "there is no key 'weights'; the batch has the keys 'x', 'y'",
    ),
    "value in Python": (Task(init, python_value, DATA), r"depends on the value of an array in Python.*jnp.where"),
    "exception": (Task(init, raises, DATA), "loss fails: RuntimeError: the cat is on the keyboard"),
    "state that changes": (
        Task(lambda key: (init(key), jnp.zeros(2)), growing_state, DATA),
        r"model state changes .*\(2,\) float32, then  ?\(4,\) float32",
    ),
    "no state returned": (
        Task(lambda key: (init(key), jnp.zeros(2)), no_state, DATA),
        r"must return \(loss, next state\)",
    ),
    "no initial state": (Task(only_params, growing_state, DATA), r"init must return \(params, state\)"),
    "integer params": (Task(integer_params, loss, DATA), r"parameter \['count'\] has dtype int32"),
    "no params": (Task(no_params, loss, DATA), "init returns no array"),
    "init that raises": (Task(init_raises, loss, DATA), "init fails: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_check_explains_with_the_line_of(mistake):
    task, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence) as caught:
        check(task)
    text = str(caught.value)
    assert text.startswith("mine:task: ") and "test_own_task.py:" in text and "# here" in text and "\n" not in text


@pytest.mark.parametrize(
    "data, sentence",
    [
        ("missing.npz", r"data file 'missing.npz' does not exist in .*numpy.savez"),
        (Path(__file__), r"cannot be read as .npz"),
        ({"x": X, "y": np.zeros(5)}, r"differ in their number of rows \(\['x'\] 100, \['y'\] 5\)"),
        ({"x": np.array(["a"] * 40)}, r"\['x'\] have dtype <U1: give numbers"),
        ({"x": np.where(X > 2, np.nan, X)}, r"\['x'\] hold \d+ numbers that are not finite"),
        (
            {"x": np.arange(100) + 2**33},
            r"\['x'\] hold numbers from 8589934592 to 8589934691, .* int32, from -2147483648 to 2147483647: number codes from 0",
        ),
        ({"x": np.arange(100, dtype=np.uint64) << 32}, r"\['x'\] hold .* uint32, from 0 to 4294967295"),
        (
            {"x": np.where(X > 2, 1e300, X.astype(float))},
            r"\['x'\] hold .* to 1e\+300, .* float32, from -3.4028235e\+38 to 3.4028235e\+38",
        ),
        (lambda random: np.full(20, -(2**40)), "<lambda> returned hold numbers from -1099511627776"),
        ({"x": X[:12]}, "12 rows, too few to divide: 20 are needed"),
        ({}, "hold no array"),
        ({"x": 3.0}, "is a single number"),
        (ragged, r"ragged returned differ in their number of rows"),
        (lambda random: {"x": np.zeros((int(random.integers(20, 2000)), 3))}, "data of two tasks differ .*shapes"),
    ],
)
def test_check_explains_unusable(data, sentence):
    with pytest.raises(UserError, match=sentence):
        check(Task(init, loss, data))


@pytest.mark.parametrize(
    "task, sentence",
    [
        (
            Task(init, too_many, DATA),
            r"loss must take \(params, batch\).*takes \(params, batch, labels, epoch\).*# here",
        ),
        (Task(init, lambda params: 0.0, DATA), r"loss must take \(params, batch\)"),
        (Task(init, 3, DATA), "loss = 3 is not a function"),
        (Task(init, min, DATA), "loss = <built-in function min> does not say .*: wrap it in a function of your own"),
        (Task(init, loss, dict), "the data = <class 'dict'> does not say .*: wrap it in a function of your own"),
        (Task(lambda key, size: 0, loss, DATA), r"init must take one argument, a key; it takes \(key, size\)"),
    ],
)
def test_check_explains_wrong_signatures(task, sentence):
    with pytest.raises(UserError, match=sentence):
        check(task)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of the user's, with the import path and the modules put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "helper"):
        sys.modules.pop(name, None)


MODEL = "from common.own_task.task import Task\nimport jax.numpy as jnp\ntask = Task(lambda key: {'w': jnp.ones(2)}, "


def test_task_in_a_module_is_named_by_the_configuration(project):
    (project / "mine.py").write_text(
        MODEL + "lambda params, batch: jnp.mean((params['w'][None] - batch) ** 2), jnp.ones((30, 2)))\n"
    )
    assert dry_step.check_config(CONFIG).startswith("mine:task: 2 parameters")
    assert dry_step.check_config(Config()) == ""


def test_module_that_fails_is_named_with_its_line(project):
    (project / "mine.py").write_text("\nlimit = {}['size']\n")
    with pytest.raises(UserError, match=r"mine fails when it is imported \(KeyError: 'size', mine.py:2: `limit = "):
        dry_step.check_config(CONFIG)


@pytest.mark.parametrize("name", ["common", "workers", "cluster", "learner"])
def test_project_with_a_package_of_our_name(project, name):
    (project / name).mkdir()
    (project / name / "waves.py").write_text("")
    (project / "mine.py").write_text(
        f"import helper\n{MODEL}lambda params, batch: jnp.mean(params['w'] ** 2), jnp.ones(30))\n"
    )
    (project / "helper.py").write_text("")
    assert dry_step.check_config(CONFIG)  # a package that the model does not import is in nobody's way
    for line in (f"from {name} import waves", f"import {name}.waves", f"from {name}.waves import x", f"import {name}"):
        (project / "helper.py").write_text(f"\n{line}\n")
        with pytest.raises(UserError, match=rf"helper.py:2 imports '{name}'.*rename the folder or file {name}"):
            dry_step.check_config(CONFIG)
