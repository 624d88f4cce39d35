"""The application: command line, launchers, actors, monitoring. The only package that imports Ray."""

import sys
from importlib.util import find_spec
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def _replaced() -> tuple[str, Path] | None:
    """The first of our other packages that Python would import from somewhere else, and from where."""
    for package in ("common", "learner", "workers"):
        spec = find_spec(package)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is not None and origin.parent != TOP / package:
            return package, origin
    return None


if replaced := _replaced():
    sys.stderr.write(
        "outertrain: Python finds {0!r} in {1}, before outertrain's own package of that name: take that folder off "
        "PYTHONPATH, rename its {0}, or use the command outertrain instead of python -m\n".format(*replaced)
    )
    sys.exit(2)
