"""`import outertrain`: the public names, what importing them loads, and a run by function call."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import outertrain
import pytest

from cluster.api.reference import reference
from cluster.cli.init_task import write
from cluster.cli.main import main
from common.errors import UserError

PUBLIC = Path(__file__).parent.parent / "cluster" / "public"
PATH = f"{PUBLIC}:{PUBLIC.parents[1]}"
QUICK = {  # one outer update of two steps
    "task.inner_steps": 4,
    "curriculum.start": 2,
    "curriculum.end": 2,
    "workers.segment": 2,
    "workers.count": 1,
    "estimator.pairs": 1,
    "estimator.merge": "scalar",
    "optimizer.family": "sgd",
    "outer.updates": 1,
    "outer.batch_samples": 2,
    "evaluation.tasks": 0,
}


def python(code, folder, path=PATH):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": path}
    )


def test_import_loads_no_library_and_lists_its_names(tmp_path):
    code = "import sys, outertrain; print(*{'jax', 'ray', 'numpy', 'common'} & set(sys.modules), *dir(outertrain))"
    assert python(code, tmp_path).stdout.split() == sorted(outertrain.__all__, key=dir(outertrain).index)
    assert set(outertrain.__all__) == {"Task", "__version__", "evaluate", "load", "train"}
    assert all(getattr(outertrain, name) is not None for name in outertrain.__all__)
    assert outertrain.__version__ == importlib.metadata.version("outertrain")
    with pytest.raises(AttributeError, match="no attribute 'Learner': it has Task"):
        outertrain.Learner  # noqa: B018


@pytest.mark.parametrize("name", ["common", "workers", "cluster", "learner"])
def test_import_beside_a_package_of_our_name_says_so(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = python("import outertrain", tmp_path)
    sentence = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and sentence.startswith(f"ImportError: Python finds {name!r} in {tmp_path}/{name}")
    assert "rename your" in sentence


def test_load_is_the_exported_optimizer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["export", "small-conv-train", "-o", "exported_by_test.py"]) == 0
    exported = __import__("exported_by_test").optimizer()
    params = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.ones(3)}
    results = []
    for tx in (outertrain.load("small-conv-train"), exported):
        state, w = tx.init(params), params
        for _ in range(3):
            updates, state = jax.jit(tx.update)(w, state, w)
            w = optax.apply_updates(w, updates)
        results.append(w)
    jax.tree.map(np.testing.assert_array_equal, *results)
    with pytest.raises(UserError, match="nothing"):
        outertrain.load("nothing")


def test_init_task_writes_once(tmp_path, capsys):
    assert main(["init-task", str(tmp_path / "new")]) == 0
    assert f"cd {tmp_path}/new && outertrain train config.toml" in capsys.readouterr().err
    (tmp_path / "new" / "model.py").write_text("mine")
    assert main(["init-task", str(tmp_path / "new")]) == 2
    assert (tmp_path / "new" / "model.py").read_text() == "mine" and "already" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("model", None)


@pytest.mark.heavy
def test_train_of_the_starting_point_returns_its_optimizer(project, capfd):
    from model import task

    assert reference(task) == "model:task"
    trained = outertrain.train(task, "config.toml", settings=QUICK, in_process=True)
    assert trained.name == "config" and trained.facts["version"] == 1 and trained.report.is_file()
    assert "model:task: 804 parameters" in capfd.readouterr().err
    params = {"w": jnp.ones((2, 3))}
    state = trained.optimizer().init(params)
    assert trained.optimizer().update(params, state, params)[0]["w"].shape == (2, 3)
    text = Path("model.py").read_text()
    Path("model.py").write_text(text.replace("return -jnp.mean(chosen)", "return -jnp.mean(chosen) - 100"))
    with pytest.raises(
        UserError, match=r"^model:task: the loss is -\d+.* must not be negative.*\(model.py:\d+: `return"
    ):
        outertrain.train("model:task", "config.toml", name="bad", settings=QUICK)
    assert [path.name for path in (project / "runs").iterdir()] == ["config"]


@pytest.mark.slow
def test_evaluate_of_a_run_returns_its_comparison(project):
    few = {"evaluation.tasks": 1, "evaluation.initialisations": 1, "evaluation.rate_count": 3}
    outertrain.train("model:task", "config.toml", settings=QUICK, in_process=True)
    compared = outertrain.evaluate("config", settings=few, in_process=True)
    assert compared["tasks"] == 1 and compared["version"] == 1 and compared["ratio"] > 0


@pytest.mark.cluster
def test_train_under_ray_beside_packages_of_our_names(project):
    for name in ("common", "workers", "cluster", "learner"):
        (project / name).mkdir()
        (project / name / "__init__.py").write_text("raise AssertionError('a package of the user replaced ours')")
    settings = [f"--set={key}={value}" for key, value in QUICK.items()]
    command = [sys.executable, "-P", "-m", "cluster.cli.main", "train", "config.toml", *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "update 1/1" in done.stderr
