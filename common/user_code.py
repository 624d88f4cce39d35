"""Functions of the user's own, which a configuration names as `module:function`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.own_task.imports import check_imports
from common.own_task.source import place_of_error

PACKAGES = ("common", "learner", "workers", "cluster")  # ours, besides the module outertrain


def load_function(key: str, reference: str, returned: str) -> Callable[..., Any]:
    """The function that a key of the configuration names.

    Args:
      key: of the configuration, for errors.
      reference: "module:function".
      returned: what the function should return, for errors.

    Raises:
      UserError: as `load`, or it is not a function.
    """
    found = load(key, reference)
    if not callable(found):
        raise UserError(f"{key}: {reference} is not a function: name one that returns {returned}")
    loaded: Callable[..., Any] = found
    return loaded


def load(key: str, reference: str) -> Any:
    """What a key of the configuration names. The current directory is appended to the import path.

    Raises:
      UserError: the module cannot be imported or has the name of one of our packages, or the name does not exist.
    """
    module_name, _, function_name = reference.partition(":")
    if module_name.split(".")[0] in (*PACKAGES, "outertrain"):
        raise UserError(f"{key}: the module {module_name!r} would shadow ours: give it another name")
    check_imports(key, module_name, Path.cwd(), PACKAGES)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # appended, not prepended: a user's file must not shadow a library
    try:
        module = importlib.import_module(module_name)
        if hasattr(module, function_name):
            return getattr(module, function_name)
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise UserError(f"{key} = {reference!r} cannot be loaded{_reason(error, module_name)}") from error
    raise UserError(
        f"{key} = {reference!r} cannot be loaded: {module_name} has no {function_name!r}: name what it defines"
    )


def _reason(error: BaseException, module: str) -> str:
    """Why the import of a module failed, and what to do about it."""
    missing = (error.name or "") if isinstance(error, ImportError) else ""
    if (ours := missing.split(".")[0]) in PACKAGES:
        return (
            f" ({error}): in outertrain's processes {ours!r} is a package of outertrain, so yours cannot be imported: rename "
            f"the folder or file {ours} of your project"
        )
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{missing}."):
        return f" ({error}): run where {module}.py is, or install it"
    at = place_of_error(error)
    remedy = (
        ": check what it imports, and install what is missing"
        if isinstance(error, ImportError)
        else "; a script needs `if __name__ == '__main__':` before what it runs"
    )
    return f": {module} fails when it is imported ({type(error).__name__}: {error}{at and f', {at}'}){remedy}"
