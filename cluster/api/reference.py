"""The name by which other processes import a `Task` that this process holds."""

import sys
from pathlib import Path
from types import ModuleType

from common.errors import UserError
from common.own_task.task import Task


def reference(task: Task) -> str:
    """`module:name` of a task. Raises UserError for one that no other process can import."""
    for module in _modules(task):
        for name, value in list(vars(module).items()):
            if value is task:
                return f"{_importable(module)}:{name}"
    raise UserError(
        "the task is in no module, so workers cannot import it: assign it to a name at the top of a file, such as "
        "`task = outertrain.Task(...)` in my_model.py"
    )


def _modules(task: Task) -> list[ModuleType]:
    """The module of the loss first, __main__ last: a task that it has imported is in a module as well.

    Without builtins, where Python's prompt keeps the value that it has printed last.
    """
    own = getattr(task.loss, "__module__", None)
    known = [(name, module) for name, module in list(sys.modules.items()) if name != "builtins"]
    known.sort(key=lambda one: (one[0] == "__main__", one[0] != own))
    return [module for _, module in known if isinstance(module, ModuleType)]


def _importable(module: ModuleType) -> str:
    """The name of a module; of __main__ the one under which others import it."""
    if module.__name__ != "__main__":
        return module.__name__
    spec = getattr(module, "__spec__", None)  # of `python -m`; its name is complete, with the package
    name = _script(module) if spec is None else spec.name
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(
            f"workers cannot import {name}.py: rename it with letters, digits and '_' only, no digit first, such as my_model.py"
        )
    return name


def _script(module: ModuleType) -> str:
    """The name of the file that Python was started with, without its suffix."""
    file = getattr(module, "__file__", None)
    if file is None:
        raise UserError(
            "the task is defined in a notebook or an interactive session, so workers cannot import it: write its cell to a "
            "file (`%%writefile my_model.py`) and import the task from there"
        )
    if Path(file).resolve().parent != Path.cwd():
        raise UserError(
            f"workers import {Path(file).name} from the current folder: start Python in {Path(file).parent}"
        )
    return Path(file).stem
