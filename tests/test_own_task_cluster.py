"""A user's task on a Ray cluster, in a project with packages that are named as ours."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ray_environment  # noqa: F401  before Ray
from helpers.cluster import Scene, start_cluster, until
from test_public import PATH, QUICK

from cluster.cli.init_task import write
from cluster.cli.main import main
from cluster.launchers import ray_cluster

NAMES = ("common", "workers", "cluster", "learner")
SETTINGS = [f"--set={key}={value}" for key, value in {**QUICK, "outer.updates": 1000}.items()]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in {"OUTERTRAIN_RUNS": str(tmp_path / "runs"), "RAY_ADDRESS": "", "PYTHONPATH": PATH}.items():
        monkeypatch.setenv(name, value)
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError('a package of the user replaced ours')")
        (tmp_path / name / "waves.py").write_text("")
    return tmp_path


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.heavy) for name in NAMES[1:])])
def test_launch_refuses_a_task_that_imports(name: str, project: Path, capsys: pytest.CaptureFixture) -> None:
    """Before it looks for a cluster, of which there is none."""
    (project / "model.py").write_text(f"import {name}.waves\n{(project / 'model.py').read_text()}")
    assert main(["launch", "config.toml", "--name", "a", *SETTINGS]) == 2
    sentence = capsys.readouterr().err
    assert f"model.py:1 imports {name!r}" in sentence and f"rename the folder or file {name}" in sentence
    assert not (project / "runs" / "a").exists()


@pytest.fixture
def on_cluster(project: Path) -> Iterator[Path]:
    cluster = start_cluster(1, cores=2)
    yield project
    cluster.shutdown()


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore:os.fork")
def test_launched_task_trains_beside_packages_of_our_names(on_cluster: Path) -> None:
    assert main(["launch", "config.toml", "--name", "a", *SETTINGS]) == 0
    with ray_cluster.connected("a"):
        until(lambda: Scene("a").learner().version >= 2, 120)
    assert main(["stop", "a"]) == 0
