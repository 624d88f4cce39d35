"""The cores that this process may use, and one of them for itself.

No function here assumes that this process sees the whole machine: a batch system restricts the affinity mask, a
container the CPU time (a quota of its control group), and two containers do not see each other's locks.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from common.errors import UserError

PIN_VARIABLE = "OUTERTRAIN_PIN"
LOCKS_VARIABLE = "OUTERTRAIN_CORE_LOCKS"  # prefix of the locks, for tests
PINNING = ("auto", "always", "never")  # its values
HOSTS_NETWORK = Path("/proc/sys/net/core/dev_weight")  # the kernel shows it in the host's own network namespace only
_held: list[socket.socket] = []  # until this process ends, in whatever way


def count() -> int:
    """Returns how many computing processes this process may start: the cores of its mask, at most those of its quota."""
    allowed, limit = len(os.sched_getaffinity(0)), quota()
    return allowed if limit is None else max(1, min(allowed, int(limit)))


def quota(proc: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Returns the CPU time per second that the control groups of this process grant, in cores; None: no limit."""
    limits = []
    with suppress(OSError):
        for line in proc.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                limits += list(_limits(mounted, path, _limit_v2))
            elif "cpu" in controllers.split(","):
                limits += list(_limits(mounted / "cpu", path, _limit_v1))
    return min(limits, default=None)


def _limits(root: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """The limits of a control group and of all above it. In a container its path may be the host's: then the root's."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(root):
            with suppress(OSError, ValueError, ZeroDivisionError):
                if (limit := read(folder)) is not None:
                    yield limit


def _limit_v2(group: Path) -> float | None:
    allowed, period = (group / "cpu.max").read_text().split()
    return None if allowed == "max" else int(allowed) / int(period)


def _limit_v1(group: Path) -> float | None:
    allowed = int((group / "cpu.cfs_quota_us").read_text())
    return None if allowed < 0 else allowed / int((group / "cpu.cfs_period_us").read_text())


def may_pin() -> bool:
    """Whether a process may be pinned: nobody else on this host would unknowingly take the same core.

    Not where a quota is smaller than the mask: the cores of the mask are then those of the whole node, which others
    use as well. Not in a network namespace of its own, as containers have: the locks would be seen there only.
    OUTERTRAIN_PIN=always or never decides otherwise; `always` is for a container whose cores are its own.

    Raises:
      UserError: the variable has another value.
    """
    mode = os.environ.get(PIN_VARIABLE) or "auto"
    if mode not in PINNING:
        raise UserError(f"{PIN_VARIABLE} = {mode!r} is not a choice: use one of {', '.join(PINNING)}")
    if mode != "auto":
        return mode == "always"
    limit = quota()
    return HOSTS_NETWORK.exists() and (limit is None or limit >= len(os.sched_getaffinity(0)))


def pin_to_free_core() -> int | None:
    """Restricts this process, its present and future threads, to the first core that no process of ours has taken.

    Returns the core, or None when this process is not pinned: it may not be, or each core of its mask is taken.
    """
    if not may_pin():
        return None
    import psutil

    for core in sorted(os.sched_getaffinity(0)):
        lock = _take(core)
        if lock is None:
            continue
        _held.append(lock)
        for thread in psutil.Process().threads():
            with suppress(ProcessLookupError):  # a thread that has ended meanwhile
                os.sched_setaffinity(thread.id, {core})
        return core
    return None


def _take(core: int) -> socket.socket | None:
    """Locks a core until this process ends; None when another process has it.

    The lock is an abstract socket: one for all users of a network namespace, without a file that something could
    delete, and released by the kernel.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0{os.environ.get(LOCKS_VARIABLE, 'outertrain-core')}-{core}")
    except OSError:
        lock.close()
        return None
    return lock
