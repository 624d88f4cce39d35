"""Our own Ray on this machine, for the duration of one command; and the settings of every Ray process we start."""

import fcntl
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from cluster.actors.ray_errors import explained, summary
from cluster.actors.ray_head import reduced
from cluster.actors.user_files import stage
from common.config import Config
from common.errors import UserError

SETTINGS = {
    "RAY_worker_niceness": "0",  # Ray's default, 15, would starve the learner
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
}
FOREIGN = (  # what a job of another cluster, in which `train` may run, says about that cluster
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_RUNTIME_ENV_HOOK",
    "RAY_REDIS_ADDRESS",  # set in the pods of a cluster with fault tolerance; Ray aborts where it is unreachable
    "RAY_USE_TLS",  # ours is on the loopback interface, and has no certificates
    "RAY_LD_PRELOAD_ON_WORKERS",
)
SYSTEM = {
    "enable_metrics_collection": False,
    "health_check_timeout_ms": 60_000,  # on one machine: busy cores must not be mistaken for a dead node
    "health_check_failure_threshold": 10,
}
SCRATCH = "outertrain-ray-"  # prefix of the folders of Ray's sockets, logs and sessions
LONGEST_PARENT = 107 - len(f"/{SCRATCH}12345678/r/session_2026-01-01_00-00-00_123456_1234567/sockets/plasma_store.12")
YOUNG_S = 60.0  # a folder may not be locked yet
OBJECT_STORE_BYTES = 100 * 2**20  # messages are inline: the store stays empty


def apply_settings() -> None:
    """Must be called before Ray is imported, which reads some of them."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def has_token() -> bool:
    """Whether this user has a token for a cluster with token authentication."""
    named = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return "RAY_AUTH_TOKEN" in os.environ or named.is_file()


@contextmanager
def local(processes: int, namespace: str, config: Config) -> Iterator[None]:
    """Starts Ray on the loopback interface with a fresh secret token; on exit it is stopped with all its processes.

    Args:
      processes: number of worker processes to start in advance.
      namespace: of the actors.
      config: of the run; the user's task family is made importable.

    Raises:
      UserError: Ray does not start.
    """
    apply_settings()
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    sweep()
    scratch, lock = make_scratch()
    try:
        with chdir(
            stage(config, scratch, here_only=True)
        ):  # Ray puts the current folder first on the import path of its processes
            _start(ray, processes, namespace, scratch)
        with redirect_stdout(sys.stderr), explained():  # Ray prints messages there; standard output is for scripts
            yield
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def _start(ray: Any, processes: int, namespace: str, scratch: Path) -> None:
    try:
        with reduced():
            ray.init(
                address="local",
                num_cpus=processes,
                namespace=namespace,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(
                    scratch / "r"
                ),  # not scratch, which would become writable for all users: Ray opens its folder
                _system_config=SYSTEM | {"worker_maximum_startup_concurrency": processes},
            )
    except Exception as error:  # Ray raises nothing narrower when its processes do not start within 30 s
        raise UserError(
            f"Ray did not start on this machine ({summary(error)}): if other programs keep its cores busy, "
            "try again later; `outertrain train --in-process` needs no Ray"
        ) from error


def make_scratch() -> tuple[Path, int]:
    """Returns a new folder for Ray's files, and the open descriptor that locks it.

    The lock is on the folder: `sweep` respects it whichever container its owner is in, and so do cleaners of temporary
    folders (systemd-tmpfiles), for as long as the command runs.

    Raises:
      UserError: no temporary folder is writable and has a path short enough for Ray's sockets.
    """
    for parent in scratch_parents():
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return folder, descriptor
    raise UserError(
        f"Ray needs a writable temporary folder with a path of at most {LONGEST_PARENT} characters, for its sockets: make "
        "/tmp writable, or set TMPDIR to a short path; `outertrain train --in-process` needs no Ray"
    )


def scratch_parents() -> list[Path]:
    """Existing temporary folders with a path short enough for Ray's sockets, the preferred one first."""
    named = (tempfile.gettempdir(), "/tmp", "/var/tmp", f"/run/user/{os.getuid()}", "/dev/shm")
    return [
        Path(name) for name in dict.fromkeys(named) if len(os.fsencode(name)) <= LONGEST_PARENT and Path(name).is_dir()
    ]


def sweep() -> None:
    """Removes the folders that killed commands have left in the temporary folders."""
    for folder in (path for parent in scratch_parents() for path in parent.glob(f"{SCRATCH}*")):
        with suppress(OSError):
            stat = folder.stat()
            if stat.st_uid != os.getuid() or time.time() - stat.st_ctime < YOUNG_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its owner runs
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
