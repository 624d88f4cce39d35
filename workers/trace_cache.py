"""Traced functions kept between processes: a process that starts reads the unroll's from files.

JAX keeps compiled functions itself, but to find one it traces and lowers the function first, which takes a worker longer
than everything else between its start and its first sample. What is kept is the lowered function (StableHLO, by
`jax.export`), under a name that depends on all that tracing depends on.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
from jax import export

from common import files, runtime
from common.config import Config, digest
from common.optimizer.mlp import MLPState
from common.optimizer.tensor_rule import RuleState
from workers.inner_step import InnerState
from workers.segment import Cotangent, Tape

log = logging.getLogger(__name__)
KEPT_BYTES = 64 * 2**20  # of traced functions; a configuration has about 0.2 MB
CHECKED = 64  # characters of the checksum before a kept function

for _type in (InnerState, Cotangent, Tape, MLPState, RuleState):  # what the functions return
    export.register_namedtuple_serialization(_type, serialized_name=f"outertrain.{_type.__name__}")


class TraceCache:
    """A `workers.unroll.Compiler` that reads traced functions from a folder, and writes those that are missing."""

    def __init__(self, folder: Path, identity: str):
        """Args: identity: of everything that the functions depend on besides their arguments."""
        self._folder, self._identity = folder, identity

    def __call__(self, name: str, function: Callable[..., Any], donated: tuple[int, ...] = ()) -> Any:
        """The compiled function.

        Args:
          name: of the function; others of this identity have other names.
          donated: arguments whose memory is used for the result.
        """

        def traced(*arguments: Any) -> Any:
            leaves, tree = jax.tree.flatten(arguments)
            keys = {k: jax.random.key_impl(leaf) for k, leaf in enumerate(leaves) if _is_key(leaf)}
            plain = [jax.random.key_data(leaf) if k in keys else leaf for k, leaf in enumerate(leaves)]

            def flat(*plain: Any) -> Any:
                leaves = [jax.random.wrap_key_data(x, impl=keys[k]) if k in keys else x for k, x in enumerate(plain)]
                return function(*jax.tree.unflatten(tree, leaves))

            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in plain]
            known = [self._identity, name, str(tree), [str(x) for x in shapes], [str(key) for key in keys.values()]]
            kept = self._kept(hashlib.sha256(json.dumps(known).encode()).hexdigest(), flat, shapes)
            return function(*arguments) if kept is None else kept.call(*plain)

        traced.__name__ = name
        # What a kept function returns is committed to its device, other arguments are not: without a placement that is
        # the same for all, each mixture of them would be compiled.
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.jit(traced, donate_argnums=donated, in_shardings=place)

    def _kept(
        self, digest: str, function: Callable[..., Any], shapes: list[jax.ShapeDtypeStruct]
    ) -> export.Exported | None:
        """The function of this digest; None where its result has types that cannot be kept."""
        path = self._folder / f"{digest}-cache"
        data = _read(path)
        if data is None:
            try:
                data = bytes(export.export(jax.jit(function))(*shapes).serialize())
            except (ValueError, ImportError) as error:
                log.debug("not kept: %s", error)
                return None
            with suppress(OSError):  # a process that starts later traces it again
                self._folder.mkdir(parents=True, exist_ok=True)
                runtime.prune_cache(self._folder, KEPT_BYTES)
                files.replace(path, hashlib.sha256(data).hexdigest().encode() + data)
        return export.deserialize(bytearray(data))  # a new one too, so that every process compiles the same


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _read(path: Path) -> bytes | None:
    """The kept function in a file; None where there is none, or not all of it."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, data = content[:CHECKED], content[CHECKED:]
    return data if hashlib.sha256(data).hexdigest().encode() == checksum else None


def of_run(config: Config, fingerprint: str) -> TraceCache | None:
    """The cache of a run's unroll; None for a task of the user, whose code may change unnoticed.

    Args:
      fingerprint: of the dataset's content.
    """
    if ":" in config.task.family:
        return None
    versions = [jax.__version__, jaxlib.__version__, optax.__version__, np.__version__]
    known = [digest(config, fingerprint), config.workers.segment, versions, sources()]
    identity = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return TraceCache(runtime.cache_directory() / "traces", identity)


@cache
def sources() -> str:
    """A digest of our own code that can be part of a traced function."""
    found = hashlib.sha256()
    for package in ("common", "workers"):
        top = Path(str(resources.files(package)))
        for path in sorted(top.rglob("*.py")):
            found.update(f"{package}/{path.relative_to(top)}\n".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()
