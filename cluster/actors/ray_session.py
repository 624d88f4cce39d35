"""Our own Ray on this machine, for the duration of one command; and the settings of every Ray process we start."""

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
    "RAY_worker_niceness": "0",  # Ray's default, 15, would starve the learner
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
}
SYSTEM = {
    "enable_metrics_collection": False,
    "health_check_timeout_ms": 60_000,  # on one machine: busy cores must not be mistaken for a dead node
    "health_check_failure_threshold": 10,
}
SCRATCH = "outertrain-ray-"  # + process id of the command: Ray's sockets, logs and sessions
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
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    sweep()
    scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-"))
    try:
        with chdir(stage(config, scratch)):  # Ray puts the current folder first on the import path of its processes
            _start(ray, processes, namespace, scratch)
        with redirect_stdout(sys.stderr):  # Ray prints messages there; standard output is for scripts
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
    except Exception as error:  # Ray raises nothing narrower when its processes do not start within 30 s
        raise UserError(
            f"Ray did not start on this machine ({str(error).partition('. ')[0]}): if other programs keep its cores busy, "
            "try again later; `outertrain train --in-process` needs no Ray"
        ) from error


def sweep() -> None:
    """Removes the folders that killed commands have left in the temporary folder."""
    import psutil

    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*-*"):
        owner = folder.name.removeprefix(SCRATCH).partition("-")[0]
        if owner.isdigit() and folder.stat().st_uid == os.getuid() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def stage(config: Config, scratch: Path) -> Path:
    """Returns a folder for Ray to copy to every node: the Python files next to the user's task family or optimizers.

    They are in a sub-folder, because Ray puts the folder itself first on the import path.
    """
    staged = scratch / "staged"
    user = staged / USER_FOLDER
    user.mkdir(parents=True)
    named = (name for name in (config.task.family, *config.evaluation.optimizers) if ":" in name)
    modules = {name.partition(":")[0].split(".")[0] for name in named}
    here = Path.cwd()
    if not any((here / f"{module}.py").exists() or (here / module).is_dir() for module in modules):
        return staged  # all of them are ours, or installed modules
    for path in sorted(here.iterdir()):
        if path.suffix == ".py":
            shutil.copy(path, user)
        elif (path / "__init__.py").exists():
            shutil.copytree(path, user / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return staged
