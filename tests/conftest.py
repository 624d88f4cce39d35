"""The environment of all tests: JAX on one thread and strict, compiled functions kept in the temporary folder.

Set before anything imports JAX, and by environment variables, so that processes that tests start are strict too.
Warnings are errors (pyproject.toml); 64 bits only inside `jax.enable_x64(True)`.
"""

import os
import tempfile
from pathlib import Path

from hypothesis import settings

from common import runtime

os.environ[runtime.CACHE_VARIABLE] = str(Path(tempfile.gettempdir()) / f"outertrain-tests-{os.getuid()}")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
runtime.prepare(pin=False)

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("fixed")
