"""Modules of the user's project that have the name of a package of ours, where the user's code imports them.

In the processes of outertrain these names are ours, so the import would fail, or find the wrong module silently.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError

TOP = Path(__file__).resolve().parents[2]


def check_imports(key: str, module: str, here: Path, ours: tuple[str, ...]) -> None:
    """Raises UserError where a module, or one of the project that it imports, imports a module of the project named as ours.

    Args:
      key: of the configuration that names the module, for errors.
      here: folder of the user's project.
      ours: names of our packages.
    """
    taken = [name for name in ours if _files(name, here) and (here / name).resolve() != TOP / name]
    waiting, seen = [module.split(".")[0]] if taken else [], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for file in _files(name, here):
            for imported in _imports(file):
                if imported.top in taken and _is_theirs(imported, here):
                    raise UserError(
                        f"{key}: {file.relative_to(here)}:{imported.line} imports {imported.top!r}, and in outertrain's "
                        f"processes that is a package of outertrain: rename the folder or file {imported.top} of your project"
                    )
                if imported.top not in seen and imported.top not in taken:
                    waiting.append(imported.top)


class Import(NamedTuple):
    """One imported module."""

    top: str
    second: str | None  # the name after `top`; None for `import top`
    line: int


def _is_theirs(imported: Import, here: Path) -> bool:
    """Whether an import of a module that is named as one of ours can only mean, or may mean, that of the project."""
    second = imported.second
    return second is None or _exists(here / imported.top / second) or not _exists(TOP / imported.top / second)


def _exists(module: Path) -> bool:
    return module.is_dir() or module.with_suffix(".py").is_file()


def _files(name: str, here: Path) -> list[Path]:
    """The Python files of a top-level module of the project."""
    single, folder = here / f"{name}.py", here / name
    if single.is_file():
        return [single]
    return sorted(folder.rglob("*.py")) if folder.is_dir() else []


def _imports(file: Path) -> Iterator[Import]:
    """What a file imports; nothing of a file that cannot be parsed."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # the import itself explains that
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [[*node.module.split("."), alias.name] for alias in node.names]
        else:
            continue
        yield from (Import(parts[0], parts[1] if len(parts) > 1 else None, node.lineno) for parts in names)
