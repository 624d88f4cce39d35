"""The environment of a process that computes with JAX on a CPU: one core, one thread, a persistent compilation cache.

Everything here must happen before JAX is imported. Affinity is the control that holds; the variables keep libraries
from starting threads that would only contend for that core.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

CACHE_VARIABLE = "OUTERTRAIN_CACHE"
_held_cores: list[int] = []  # open descriptors: a lock lasts as long as its process, however that ends


def cache_directory() -> Path:
    """Where compiled functions are kept between processes: $OUTERTRAIN_CACHE, or ~/.cache/outertrain."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "outertrain")


def variables() -> dict[str, str]:
    """Environment variables of a process with one computing thread."""
    return {
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        "JAX_COMPILATION_CACHE_DIR": str(cache_directory() / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def prepare(pin: bool = True) -> int | None:
    """Sets the variables of this process, except those that the user has set, and pins it to a core of its own.

    Returns the core, or None when it is not pinned: each allowed core has a process of ours already.
    """
    for name, value in variables().items():
        os.environ.setdefault(name, value)
    return pin_to_free_core() if pin else None


def pin_to_free_core() -> int | None:
    """Restricts this process, threads to come included, to the first core that no other process of ours has taken."""
    folder = Path(tempfile.gettempdir()) / f"outertrain-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for core in sorted(os.sched_getaffinity(0)):
        descriptor = os.open(folder / str(core), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        _held_cores.append(descriptor)
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})
        return core
    return None


def compile_in_turn(compilations: Mapping[str, Callable[[], object]]) -> None:
    """Calls all of them, each in only one process of this machine at a time.

    Processes that start together so begin with different ones, and find in the compilation cache what the others made.
    """
    folder = cache_directory() / "turns"
    folder.mkdir(parents=True, exist_ok=True)
    waiting = dict(compilations)
    while waiting:
        name, turn = _take_turn(folder, list(waiting))
        try:
            waiting.pop(name)()
        finally:
            os.close(turn)


def _take_turn(folder: Path, names: list[str]) -> tuple[str, int]:
    """The first whose turn is free, or the first of all once it is; its lock ends with the descriptor."""
    for name in names:
        descriptor = os.open(folder / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return name, descriptor
    descriptor = os.open(folder / names[0], os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return names[0], descriptor
