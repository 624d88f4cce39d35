"""What leaves the project works without it."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cluster.report.export import find, module_source, write
from common.config import OptimizerConfig
from common.errors import UserError
from common.optimizer import make_family
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
    "sgd": OptimizerConfig(family="sgd"),
}


def trained_here(config: OptimizerConfig, theta: np.ndarray) -> np.ndarray:
    """The same steps by this project's own family."""
    tx = make_family(config).transform(jnp.asarray(theta))
    w = {"a": jnp.linspace(-1, 1, 15).reshape(3, 5), "b": jnp.ones(7), "c": jnp.zeros(())}
    state, step = tx.init(w), jax.jit(tx.update)
    for k in range(5):
        updates, state = step(jax.tree.map(lambda x, k=k: 2 * (x - k), w), state, w)
        w = jax.tree.map(jnp.add, w, updates)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(w)])


def test_the_module_alone_in_a_folder_gives_the_same_updates(tmp_path: Path) -> None:
    thetas = {name: np.asarray(make_family(config).init(jax.random.key(1))) for name, config in FAMILIES.items()}
    for name, config in FAMILIES.items():
        (tmp_path / f"{name}.py").write_text(module_source(config, thetas[name], "here", name))
    subprocess.run([sys.executable, "-I", "-c", PROGRAM, *FAMILIES], cwd=tmp_path, check=True)
    for name, config in FAMILIES.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), trained_here(config, thetas[name]))


def test_a_theta_file_gives_theta_back(tmp_path: Path) -> None:
    given = Pretrained(np.arange(4, dtype=np.float32), OptimizerConfig(hidden=3), "here")
    write(given, tmp_path / "some.theta")
    found = find(str(tmp_path / "some.theta"))
    np.testing.assert_array_equal(found.theta, given.theta)
    assert found[1:] == given[1:]
    with pytest.raises(UserError, match="--version chooses a checkpoint of a run"):
        find(str(tmp_path / "some.theta"), version=3)


@pytest.mark.parametrize("name", ["x.py", "x.theta"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot write .*choose another place with -o"):
        write(Pretrained(np.zeros(1090, np.float32), OptimizerConfig(), "here"), tmp_path / "missing" / name)
