"""outertrain: learns optimizers for your own models. These names are the public interface; everything else may change.

    Task        a model, its loss and its data, as a task that an optimizer is learned on
    train       outer-train an optimizer, as the command `outertrain train` does
    load        a learned optimizer as an optax transformation
    evaluate    compare learned optimizers with tuned baselines, as the command `outertrain evaluate` does

>>> import outertrain
>>> tx = outertrain.load("small-conv-train")

Importing this module starts nothing, and loads neither JAX nor Ray until a name is used.
"""

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.api.commands import evaluate, train
    from cluster.api.load import load
    from common.own_task.task import Task

    __version__: str

__all__ = ["Task", "__version__", "evaluate", "load", "train"]

_PLACES = {
    "Task": "common.own_task.task",
    "evaluate": "cluster.api.commands",
    "load": "cluster.api.load",
    "train": "cluster.api.commands",
}
_MARKS = {"cluster": "api/load.py", "common": "own_task/task.py", "learner": "merge.py", "workers": "unroll.py"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        found: Any = importlib.metadata.version("outertrain")
    elif name in _PLACES:
        found = getattr(importlib.import_module(_PLACES[name]), name)
    else:
        raise AttributeError(f"module 'outertrain' has no attribute {name!r}: it has {', '.join(__all__)}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return list(__all__)


def _check_packages() -> None:
    """Raises ImportError where Python finds another package in the place of one of ours."""
    for package, mark in _MARKS.items():
        spec = importlib.util.find_spec(package)
        places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
        if spec is not None and not any((place / mark).is_file() for place in places):
            raise ImportError(
                f"Python finds {package!r} in {spec.origin or places[0]}, before outertrain's own package of that name: "
                f"rename your {package!r}, start Python in another folder, or use the command outertrain"
            )


_check_packages()
