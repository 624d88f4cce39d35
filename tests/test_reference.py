"""The name by which workers import a task: from a module, a script, `python -m`, or an interactive session."""

import builtins
import runpy
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from cluster.api.reference import reference
from common.errors import UserError
from common.own_task.task import Task

SCRIPT = """
from cluster.api.reference import reference
from common.own_task.task import Task

task = Task(lambda key: {}, lambda params, batch: 0.0, {})
found = reference(task)
"""


def loss(scale: float, params: object, batch: object) -> float:
    return scale


def held_by(monkeypatch: pytest.MonkeyPatch, *names: str) -> Task:
    """A task that modules of these names have, and whose loss is of another one."""
    task = Task(lambda key: {}, partial(loss, 1.0), {})
    for name in names:
        module = ModuleType(name)
        module.task = task  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    return task


def test_reference_of_an_imported_task_is_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook that imports it has it in __main__, which is first in sys.modules."""
    assert reference(held_by(monkeypatch, "__main__", "my_model")) == "my_model:task"


def test_reference_of_a_task_of_a_session_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's prompt keeps the value that it printed last in builtins."""
    task = held_by(monkeypatch, "__main__")
    monkeypatch.setattr(builtins, "_", task, raising=False)
    with pytest.raises(UserError, match="defined in a notebook or an interactive session"):
        reference(task)


def test_reference_of_a_task_without_a_module_is_explained() -> None:
    with pytest.raises(UserError, match="in no module, so workers cannot import it"):
        reference(Task(lambda key: {}, partial(loss, 1.0), {}))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, from which modules are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_reference_in_a_script_is_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "my_model.py").write_text(SCRIPT)
    assert runpy.run_path("my_model.py", run_name="__main__")["found"] == "my_model:task"
    monkeypatch.chdir("/")
    with pytest.raises(
        UserError, match=f"workers import my_model.py from the current folder: start Python in {project}"
    ):
        runpy.run_path(str(project / "my_model.py"), run_name="__main__")


@pytest.mark.parametrize("name", ["my-model", "2nd"])
def test_reference_in_a_script_of_another_name_is_explained(project: Path, name: str) -> None:
    (project / f"{name}.py").write_text(SCRIPT)
    with pytest.raises(UserError, match=rf"workers cannot import {name}\.py: rename it"):
        runpy.run_path(f"{name}.py", run_name="__main__")


@pytest.mark.parametrize(
    "package, started, module", [("pack_a", "pack_a.run", "pack_a.run"), ("pack_b", "pack_b", "pack_b.__main__")]
)
def test_reference_in_a_module_of_a_package_has_its_package(
    project: Path, package: str, started: str, module: str
) -> None:
    """Started by `python -m`, from the folder of the package."""
    (project / package).mkdir()
    (project / package / "__init__.py").touch()
    (project / package / f"{module.rpartition('.')[2]}.py").write_text(SCRIPT)
    found = runpy.run_module(started, run_name="__main__", alter_sys=True)["found"]
    sys.modules.pop(package)
    assert found == f"{module}:task"
