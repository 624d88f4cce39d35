"""The files of a user's own task family and optimizers, as Ray copies them to every node: code, and the data next to it."""

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from cluster.actors.worker_program import USER_FOLDER
from cluster.runs import directory
from common.config import Config
from common.errors import UserError

LIMIT_BYTES = 64 * 2**20  # of all files that are copied to the nodes of a cluster
EXCLUDED = ("__pycache__", "node_modules")  # and hidden entries, the runs, and virtual environments


def stage(config: Config, scratch: Path, *, here_only: bool = False) -> Path:
    """Returns a folder for Ray to copy to every node: the files next to the user's task family or optimizers.

    They are in a sub-folder, because Ray puts the folder itself first on the import path.

    Args:
      here_only: all processes are on this machine: Python files are copied, because a run keeps its code, and
        everything else is linked, of any size.

    Raises:
      UserError: the files are larger than `LIMIT_BYTES`.
    """
    staged = scratch / "staged"
    user = staged / USER_FOLDER
    user.mkdir(parents=True)
    here = Path.cwd()
    own = [name for name in modules_of(config) if (here / f"{name}.py").exists() or (here / name).is_dir()]
    if not own:
        return staged  # all of them are ours, or installed modules
    total = 0
    for path in files(here, own):
        target = user / path.relative_to(here)
        target.parent.mkdir(parents=True, exist_ok=True)
        if here_only and path.suffix != ".py":
            target.symlink_to(path)
            continue
        total += path.stat().st_size
        if total > LIMIT_BYTES and not here_only:
            raise UserError(_too_large(path.relative_to(here), own[0]))
        shutil.copy(path, target)
    return staged


def modules_of(config: Config) -> list[str]:
    """The top-level modules of the user's task family and optimizers."""
    families = (task.family for task in config.tasks)
    named = (name for name in (*families, *config.evaluation.optimizers) if ":" in name)
    return list(dict.fromkeys(name.partition(":")[0].split(".")[0] for name in named))


def files(top: Path, linked: Collection[str] = ()) -> Iterator[Path]:
    """The readable files under a folder that belong to a task, Python files first in each folder.

    Args:
      linked: links to folders that are followed, by name and in `top` only: others may lead in a circle.
    """
    runs = os.path.realpath(directory.root())
    folders = []
    for path in sorted(top.iterdir(), key=lambda path: (path.suffix != ".py", path.name)):
        if path.name.startswith(".") or path.name in EXCLUDED or os.path.realpath(path) == runs:
            continue
        if path.is_file() and os.access(path, os.R_OK):
            yield path
        elif path.is_dir() and (path.name in linked or not path.is_symlink()) and _is_of_the_task(path):
            folders.append(path)
    for folder in folders:
        yield from files(folder)


def _is_of_the_task(folder: Path) -> bool:
    """Whether a folder can be read and is no virtual environment."""
    return os.access(folder, os.R_OK | os.X_OK) and not (folder / "pyvenv.cfg").exists()


def _too_large(path: Path, module: str) -> str:
    return (
        f"the files next to {module} are larger than the {LIMIT_BYTES >> 20} MiB that are copied to the workers (copied up "
        f"to {path}): start the command in a folder with the task's files only, and put data where every node reads it, "
        "such as shared storage, with its absolute path in task.options"
    )
