"""A Ray of our own on this machine, for the life of one command; and the settings of every Ray process we start."""

import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from cluster.actors.worker_program import USER_FOLDER
from common.config import Config
from common.errors import UserError

SETTINGS = {
    "RAY_worker_niceness": "0",  # Ray's default of 15 would starve the learner
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
}
SYSTEM = {
    "enable_metrics_collection": False,
    "health_check_timeout_ms": 60_000,  # of a Ray on one machine: busy cores must not pass for a dead node
    "health_check_failure_threshold": 10,
}
SCRATCH = "outertrain-ray-"  # then the process id of the command: Ray's sockets, logs and sessions
OBJECT_STORE_BYTES = 100 * 2**20  # messages are inline: the store stays empty


def apply_settings() -> None:
    """Must precede the import of Ray, which reads some of them then."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def has_token() -> bool:
    """Whether this user holds a token for a cluster with authentication."""
    named = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return "RAY_AUTH_TOKEN" in os.environ or named.is_file()


@contextmanager
def local(processes: int, namespace: str, config: Config) -> Iterator[None]:
    """Starts Ray on loopback with a token that nobody else knows, and stops it with all its processes.

    `processes` of them are started at once, before anybody asks for actors.
    """
    apply_settings()
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    sweep()
    scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-"))
    try:
        with chdir(stage(config, scratch)):  # Ray puts the current folder at the front of its processes' import path
            _start(ray, processes, namespace, scratch)
        with redirect_stdout(sys.stderr):  # Ray prints there what its processes report; scripts read standard output
            yield
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def _start(ray: Any, processes: int, namespace: str, scratch: Path) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=processes,
            namespace=namespace,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(scratch),
            _system_config=SYSTEM,
        )
    except Exception as error:  # Ray raises no narrower one when its processes are not up within its 30 s
        raise UserError(
            f"Ray did not start on this machine ({str(error).partition('. ')[0]}): if other programs keep its cores busy, "
            "try again when they have ended; `outertrain train --in-process` needs no Ray"
        ) from error


def sweep() -> None:
    """Removes what commands that were killed have left in the temporary folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*-*"):
        owner = folder.name.removeprefix(SCRATCH).partition("-")[0]
        if owner.isdigit() and folder.stat().st_uid == os.getuid() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def stage(config: Config, scratch: Path) -> Path:
    """A folder for Ray to carry to every node: the Python files beside the user's task family, nothing else.

    They lie one level down, because Ray puts the folder itself at the front of the import path.
    """
    staged = scratch / "travels"
    user = staged / USER_FOLDER
    user.mkdir(parents=True)
    module = config.task.family.partition(":")[0].split(".")[0] if ":" in config.task.family else None
    here = Path.cwd()
    if module is None or not ((here / f"{module}.py").exists() or (here / module).is_dir()):
        return staged  # ours, or installed
    for path in sorted(here.iterdir()):
        if path.suffix == ".py":
            shutil.copy(path, user)
        elif (path / "__init__.py").exists():
            shutil.copytree(path, user / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return staged
