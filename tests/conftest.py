"""The environment of all tests: JAX is strict, on one thread, and quick to compile; what it compiled is kept in /tmp.

Processes that tests start have JAX's default strictness, as users have it: commands remove its options from their environment.
Warnings are errors (pyproject.toml); 64 bits only inside `jax.enable_x64(True)`.
"""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from common import runtime

os.environ[runtime.CACHE_VARIABLE] = str(Path(tempfile.gettempdir()) / f"outertrain-tests-{os.getuid()}")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling takes most of the default suite's time
runtime.prepare(pin=False)

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("fixed")

# Modules that compile or train for more than a few seconds. All other tests of the default suite are marked `quick`.
LONGER = {
    "test_bench",
    "test_conv",
    "test_drop_in",
    "test_evaluator",
    "test_export",
    "test_fixture_run",
    "test_in_process",
    "test_mlp",
    "test_model_state",
    "test_own_task",
    "test_paper_preset",
    "test_pretrained",
    "test_public",
    "test_reproduce",
    "test_task",
    "test_task_families",
    "test_tensor_families",
    "test_trace_cache",
    "test_train_from",
    "test_unroll",
    "test_worker",
}


def pytest_configure() -> None:
    import jax  # after its environment is prepared

    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marked = {mark.name for mark in item.iter_markers()}
        if item.path.stem not in LONGER and not marked & {
            "cluster",
            "extras",
            "faults",
            "slow",
            "slurm",
            "torch",
            "tracking",
        }:
            item.add_marker("quick")
