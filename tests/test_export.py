"""The exported module works without this project, and no text from files or names becomes code in it."""

import ast
import doctest
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cluster.report.export import module_source, write
from cluster.runs.learned import find
from common import checkpoint
from common.config import OptimizerConfig
from common.errors import UserError
from common.optimizer import make_family, usable
from common.pretrained import Pretrained

PROGRAM = """
import importlib, sys
import jax, jax.numpy as jnp, numpy as np
sys.path.append(".")
for name in sys.argv[1:]:
    tx = importlib.import_module(name).optimizer()
    w = {"a": jnp.linspace(-1, 1, 15).reshape(3, 5), "b": jnp.ones(7), "c": jnp.zeros(())}
    state = tx.init(w)
    step = jax.jit(tx.update)
    for k in range(5):
        updates, state = step(jax.tree.map(lambda x: 2 * (x - k), w), state, w)
        w = jax.tree.map(jnp.add, w, updates)
    np.save(name, np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(w)]))
ours = {"common", "cluster", "workers", "learner", "ray"} & set(sys.modules)
assert not ours, ours
"""
FAMILIES = {
    "whole": OptimizerConfig(),
    "ablated": OptimizerConfig(hidden=8, momentum_features=False, time_features=False),
    "adam": OptimizerConfig(family="adam"),
    "rmsprop": OptimizerConfig(family="rmsprop"),
    "sgd": OptimizerConfig(family="sgd"),
    "adam8": OptimizerConfig(family="adam8"),
    "momentum6": OptimizerConfig(family="momentum6"),
    "mlp_lopt": OptimizerConfig(family="mlp_lopt", layers=(5,)),
    "adafactor_mlp": OptimizerConfig(family="adafactor_mlp"),
    "celo2": OptimizerConfig(family="celo2", learning_rate=0.01, orthogonalize=True),
    "mlp_muon": OptimizerConfig(family="mlp_muon", layers=(8,)),
}
HOSTILE = (
    'quotes """ and \'\'\'\nraise SystemExit("executed")\n"""',
    '"""\nraise SystemExit("executed")\n#',
    "backslash \\",
    "{theta} {0} %s {",
    "line\rraise SystemExit('executed')",
    "separator\u2028raise SystemExit('executed')",
    "bidirectional \u202e text \ud800",
    "nul \0 and form feed \f",
)


def initial(config: OptimizerConfig) -> np.ndarray:
    return np.asarray(jax.jit(make_family(config).init)(jax.random.key(1)))


def trained_here(config: OptimizerConfig) -> np.ndarray:
    """The steps of PROGRAM with this project's own transformation."""
    tx = usable(config, jnp.asarray(initial(config)))
    w = {"a": jnp.linspace(-1, 1, 15).reshape(3, 5), "b": jnp.ones(7), "c": jnp.zeros(())}
    state, step = tx.init(w), jax.jit(tx.update)
    for k in range(5):
        updates, state = step(jax.tree.map(lambda x, k=k: 2 * (x - k), w), state, w)
        w = jax.tree.map(jnp.add, w, updates)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(w)])


@pytest.mark.heavy
def test_module_alone_in_a_folder_gives_the_same_updates(tmp_path: Path) -> None:
    for name, config in FAMILIES.items():
        (tmp_path / f"{name}.py").write_text(module_source(config, initial(config), "here", name))
    subprocess.run([sys.executable, "-I", "-c", PROGRAM, *FAMILIES], cwd=tmp_path, check=True)
    for name, config in FAMILIES.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), trained_here(config))


@pytest.mark.parametrize("name", FAMILIES)
def test_module_passes_linter_and_formatter(tmp_path: Path, name: str) -> None:
    path = tmp_path / "my_optimizer.py"
    path.write_text(module_source(FAMILIES[name], initial(FAMILIES[name]), "here", path.stem))
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "-q", "--isolated", "--line-length=120", "--select=E,F,I,W", path], check=True)
    subprocess.run([*ruff, "format", "-q", "--isolated", "--line-length=120", "--check", path], check=True)


@pytest.mark.heavy
def test_example_in_the_module_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my_optimizer.py"
    write(Pretrained(initial(OptimizerConfig()), OptimizerConfig(), "here"), path)
    spec = importlib.util.spec_from_file_location("my_optimizer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "my_optimizer", module)
    failed, tried = doctest.testmod(module)
    assert failed == 0 and tried >= 6


@pytest.mark.parametrize("origin", HOSTILE)
def test_hostile_origin_becomes_a_string_only(origin: str) -> None:
    config = FAMILIES["sgd"]
    source = module_source(config, initial(config), origin, "my_optimizer")
    assert source.isascii()
    harmless = module_source(config, initial(config), "here", "my_optimizer")
    [hostile, plain] = [{ast.dump(node) for node in ast.parse(text).body} for text in (source, harmless)]
    assert len(hostile - plain) == 1 == len(plain - hostile)
    names: dict[str, object] = {}
    exec(compile(source, "my_optimizer.py", "exec"), names)
    assert names["ORIGIN"] == origin


@pytest.mark.parametrize("name", ['x"""\nraise SystemExit(1)\n"""', "a b", "class", "x;import os", "\u212axmod", "1st"])
def test_hostile_file_name_is_not_pasted(name: str) -> None:
    config = FAMILIES["sgd"]
    expected = module_source(config, initial(config), "here", "my_optimizer")
    assert module_source(config, initial(config), "here", name) == expected


def test_theta_file_returns_what_was_written(tmp_path: Path) -> None:
    config = OptimizerConfig(hidden=3)
    given = Pretrained(initial(config), config, "here")
    write(given, tmp_path / "some.theta")
    found = find(str(tmp_path / "some.theta"))
    np.testing.assert_array_equal(found.theta, given.theta)
    assert found[1:] == given[1:]
    with pytest.raises(UserError, match="--version selects a checkpoint of a run"):
        find(str(tmp_path / "some.theta"), version=3)


@pytest.mark.parametrize(
    "change",
    [
        {"theta": np.zeros(3, np.float32)},
        {"theta": np.full(2, np.nan, np.float32)},
        {"origin": ["not", "text"]},
        {"origin": None},
        {"optimizer": "sgd"},
        {"optimizer": {"family": "sgd", "hidden": "8, momentum_features=exit()"}},
        {"optimizer": {"family": "__import__('os')"}},
        {"optimizer": None},
        {"kind": "checkpoint"},
    ],
)
def test_theta_file_with_a_wrong_field_is_rejected(tmp_path: Path, change: dict) -> None:
    record = {"kind": "theta", "theta": np.zeros(2, np.float32), "optimizer": {"family": "sgd"}, "origin": "here"}
    checkpoint.save(tmp_path / "good.theta", record)
    assert find(str(tmp_path / "good.theta")).origin == "here"
    for key, value in change.items():
        del record[key]
        if value is not None:
            record[key] = value
    checkpoint.save(tmp_path / "bad.theta", record)
    with pytest.raises(UserError):
        find(str(tmp_path / "bad.theta"))


@pytest.mark.parametrize("name", ["x.py", "x.theta"])
def test_path_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    learned = Pretrained(initial(OptimizerConfig()), OptimizerConfig(), "here")
    with pytest.raises(UserError, match=r"cannot write .*choose another path with -o"):
        write(learned, tmp_path / "missing" / name)
