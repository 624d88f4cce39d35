"""The environment of all tests: JAX is strict, on one thread, and quick to compile; what it compiled is kept in /tmp.

Processes that tests start have JAX's default strictness, as users have it: commands remove its options from their environment.
Warnings are errors (pyproject.toml); 64 bits only inside `jax.enable_x64(True)`.
"""

import gc
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from common import runtime

os.environ[runtime.CACHE_VARIABLE] = str(Path(tempfile.gettempdir()) / f"outertrain-tests-{os.getuid()}")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling takes most of the default suite's time
runtime.prepare(pin=False)
gc.set_threshold(20_000, 50, 50)  # of a hundred thousand objects that stay, few become garbage

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("fixed")


def pytest_configure() -> None:
    import jax  # after its environment is prepared

    jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raises UsageError for a test that two steps of .ci/run would run."""
    for item in items:
        marked = {mark.name for mark in item.iter_markers()}
        if "heavy" in marked and marked & {"cluster", "extras", "faults", "slow", "slurm", "torch", "tracking"}:
            raise pytest.UsageError(f"{item.nodeid} is marked heavy, and has another level, too: keep one of them")


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end, so that the garbage collector need not visit them again."""
    gc.freeze()
