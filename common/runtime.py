"""The environment of a process that computes with JAX on a CPU: one core, one thread, a persistent compilation cache.

All of it must happen before JAX is imported. CPU affinity is the setting that is enforced; the environment variables
keep libraries from starting threads that would compete for that one core.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from common import cores

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)
CACHE_VARIABLE = "OUTERTRAIN_CACHE"
CACHE_BYTES = 2 * 2**30  # of compiled functions; a run compiles about 10 MB


FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
QUICK = "JAX_DISABLE_MOST_OPTIMIZATIONS"  # JAX's variable: compile faster what runs slower
QUICK_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"  # halve what it leaves
KEPT_FLAGS = re.compile(r"--(xla_dump|xla_hlo_profile|xla_force_host_platform_device_count|xla_gpu)\w*(=.*)?")
OPTIONS = re.compile(
    r"(JAX|JAX2TF)_\w+|CHECK_VMA|EAGER_CONSTANT_FOLDING"
)  # how the variables of JAX's options are called
KEPT_OPTIONS = re.compile(  # those that concern the cache of compiled functions, messages, and files for people
    r"JAX_(((ENABLE_)?COMPILATION|(RAISE_)?PERSISTENT)_CACHE\w*|EXPLAIN_CACHE_MISSES|LOG_COMPILES|LOGGING_LEVEL|DEBUG_LOG_MODULES"
    r"|TRACEBACK_FILTERING|DUMP_IR_\w+|INCLUDE_\w+|CHECK_PROXY_ENVS|PPRINT_USE_COLOR|DISABLE_MOST_OPTIMIZATIONS)"
)


def cache_directory() -> Path:
    """Where compiled functions are kept between processes: $OUTERTRAIN_CACHE, or ~/.cache/outertrain."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "outertrain")


def variables() -> dict[str, str]:
    """Environment variables of a process with one computing thread."""
    return {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache_directory() / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def prepare(*, pin: bool = True) -> int | None:
    """Sets the variables of this process, and pins it to a core of its own.

    JAX's options and XLA's flags that may change numbers, or end a process where JAX's defaults do not, are removed, whatever the
    user's shell says; of the other variables, the user's values are kept.

    Returns the core, or None when it is not pinned (`cores.pin_to_free_core`).
    """
    for name, value in variables().items():
        os.environ.setdefault(name, value)
    for name in filter(OPTIONS.fullmatch, list(os.environ)):
        if not KEPT_OPTIONS.fullmatch(name):
            del os.environ[name]
    os.environ["JAX_PLATFORMS"] = "cpu"
    quick = os.environ.get(QUICK, "").lower() in ("y", "yes", "t", "true", "on", "1")  # as JAX reads it
    os.environ["XLA_FLAGS"] = xla_flags(os.environ.get("XLA_FLAGS", ""), quick=quick)
    if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:  # else JAX keeps the bound
        prune_cache(cache_directory() / "xla", CACHE_BYTES)
    return cores.pin_to_free_core() if pin else None


def xla_flags(users: str, *, quick: bool = False) -> str:
    """Returns those of the user's flags for XLA that cannot change numbers, and ours.

    Like XLA, takes what does not begin with a dash for the name of a file of flags.

    Args:
      quick: compile faster what runs slower.
    """
    if users.strip() and not users.lstrip().startswith("-"):
        try:
            users = Path(users).read_text()
        except (OSError, ValueError):
            users = ""  # XLA ignores it, too
    ours = f"{QUICK_FLAGS} {FLAGS}" if quick else FLAGS
    return " ".join((*filter(KEPT_FLAGS.fullmatch, users.split()), ours))


def prune_cache(folder: Path, most: int) -> None:
    """Deletes the compiled functions used longest ago, until those left have at most three quarters of `most` bytes.

    JAX's own bound is not used: it keeps the times of use in files beside the entries, and never writes to the cache
    again once a process was killed between the two, or where entries are older than the bound. Deleting a file that
    another process reads is harmless; that process compiles.
    """
    entries = []
    for path in folder.glob("*-cache"):
        with suppress(OSError):  # another process has deleted it
            stat = path.stat()
            entries.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in entries)
    if total <= most:
        return
    for _, size, path in sorted(entries):
        if total <= 0.75 * most:
            break
        with suppress(OSError):
            path.unlink()
        total -= size


def compile_in_turn(compilations: Mapping[str, Callable[[], object]]) -> None:
    """Calls all functions, each of them in only one process of this machine at a time.

    So processes that start together begin with different ones, and find in the compilation cache what the others have
    compiled. Where the folder of the cache cannot be written or its file system has no locks, nobody takes turns: the
    same functions are compiled more than once.
    """
    remaining = dict(compilations)
    while remaining:
        try:
            name, lock = _next_turn(cache_directory() / "turns", list(remaining))
        except OSError as error:
            log.warning("cannot take turns at compiling (%s): every process of this machine compiles by itself", error)
            for compilation in remaining.values():
                compilation()
            return
        try:
            remaining.pop(name)()
        finally:
            lock.release()


def _next_turn(folder: Path, names: list[str]) -> tuple[str, "BaseFileLock"]:
    """Locks the first name that is free, or waits for the first of all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (lock := _lock_now(folder / name)) is not None:
            return name, lock
    lock = _lock_of(folder / names[0])
    lock.acquire()
    return names[0], lock


def _lock_of(path: Path) -> "BaseFileLock":
    """An flock: the system releases it when the process ends. The fallback of filelock is not released, so not used."""
    from filelock import FileLock

    return FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)


def _lock_now(path: Path) -> "BaseFileLock | None":
    """The acquired lock, or None when another process holds it."""
    from filelock import Timeout

    lock = _lock_of(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock
