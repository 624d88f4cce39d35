"""A run on disk: `runs/<name>/`, its files by name, and who may write them."""

import fcntl
import json
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from common import configfile, files
from common.config import Config
from common.errors import UserError
from learner import checkpoints

ROOT_VARIABLE = "OUTERTRAIN_RUNS"
TRAINING, EVALUATION = "lock", "evaluation.lock"  # what a process may hold of a run


def root() -> Path:
    """The folder of all runs: $OUTERTRAIN_RUNS, or `runs` in the current directory."""
    return Path(os.environ.get(ROOT_VARIABLE) or "runs").absolute()


class LogFile(logging.FileHandler):
    """Takes what this process logs, until it is closed. The file is opened when there is something to log.

    While it cannot be written, lines are lost: no reason to end a process.
    """

    ROOMS = ("cluster", "common", "learner", "workers")

    def __init__(self, path: Path):
        super().__init__(path, delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._levels = {room: logging.getLogger(room).level for room in self.ROOMS}
        for room in self.ROOMS:
            logging.getLogger(room).setLevel(logging.INFO)
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        logging.getLogger().removeHandler(self)
        for room, level in self._levels.items():
            logging.getLogger(room).setLevel(level)
        super().close()


class RunDirectory:
    """Paths only; each file has one writer, which owns its format."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.name
        self.config_file = path / "config.toml"
        self.history = path / "history.jsonl"
        self.evaluation = path / "evaluation"
        self.report = path / "report"
        self.page = self.report / "index.html"
        self.summary = self.evaluation / "summary.json"
        self.log_file = path / "log.txt"
        self._fleet_file = path / "fleet.json"
        self._failure_file = path / "failure.txt"

    def config(self) -> Config:
        return configfile.load(str(self.config_file))

    def write_config(self, config: Config) -> None:
        files.replace(self.config_file, configfile.dump(config))

    def start_log(self) -> LogFile:
        """From now on this process appends what it logs to the run's log, as others may do too; until it is closed."""
        return LogFile(self.log_file)

    def log(self, lines: int) -> str:
        """The end of the run's log; "" before there is one."""
        if not self.log_file.exists():
            return ""
        with open(self.log_file) as file:
            return "".join(deque(file, maxlen=lines))

    def worker_target(self) -> int | None:
        """How many workers were last asked for; None before anybody has."""
        try:
            return int(json.loads(self._fleet_file.read_text())["workers"])
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self._fleet_file} is damaged ({error}): delete it and scale again") from None

    def save_worker_target(self, workers: int) -> None:
        files.replace(self._fleet_file, json.dumps({"workers": workers}) + "\n")

    def last_failure(self) -> str | None:
        """The traceback of the worker that failed last, if one has since the run was scaled."""
        return (self._failure_file.read_text() or None) if self._failure_file.exists() else None

    def save_failure(self, traceback: str | None) -> None:
        files.replace(self._failure_file, traceback or "")

    def write_summary(self, facts: dict[str, Any]) -> None:
        files.replace(self.summary, json.dumps(facts) + "\n")


def create(name: str, config: Config) -> RunDirectory:
    """A new run directory with its config. It appears whole or not at all.

    Raises:
      UserError: the name is taken or no file name, or the place is not writable or full.
    """
    check_name(name)
    path = root() / name
    if path.exists():
        raise UserError(f"the run {name!r} exists already ({path}): go on with --resume, or choose another --name")
    scratch = None
    try:
        root().mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root()))
        RunDirectory(scratch).write_config(config)
        for folder in ("checkpoints", "evaluation"):
            (scratch / folder).mkdir()
        scratch.chmod(0o755)
        os.rename(scratch, path)
    except OSError as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        raise UserError(f"cannot make the run directory {path}: {files.explain(error)}") from None
    return RunDirectory(path)


def discard(run: RunDirectory) -> None:
    """Removes a run that has come to nothing: one without a checkpoint."""
    if not any((run.path / "checkpoints").glob("*.ckpt")):
        shutil.rmtree(run.path)


def find(name: str) -> RunDirectory:
    """An existing run, by its name or by its path. Raises UserError when there is none."""
    for path in (root() / name, Path(name).absolute()):
        if (path / "config.toml").is_file():
            return RunDirectory(path)
    known = ", ".join(names()) or "there is none yet"
    raise UserError(f"no run {name!r} in {root()}: the runs there are: {known}")


def names() -> list[str]:
    return sorted(p.parent.name for p in root().glob("*/config.toml") if not p.parent.name.startswith("."))


def free_name(stem: str) -> str:
    """`stem`, or `stem-2`, `stem-3`, ... : the first that no run has."""
    taken, number = set(names()), 1
    while (name := stem if number == 1 else f"{stem}-{number}") in taken or (root() / name).exists():
        number += 1
    return name


def check_name(name: str) -> None:
    if not name or name.startswith((".", "-")) or not all(c.isalnum() or c in "._-" for c in name):
        raise UserError(f"{name!r} cannot name a run: use letters, digits, '.', '_' and '-', and start with a letter")


@contextmanager
def exclusive(run: RunDirectory, what: str = TRAINING) -> Iterator[None]:
    """Holds the run for this process, until it ends in whatever way. Raises UserError when another one holds it.

    A run may be evaluated while it is trained, by one process: each of the two has a lock of its own.
    """
    try:
        descriptor = os.open(run.path / what, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"cannot write in the run directory {run.path}: {files.explain(error)}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"the run {run.name!r} is in use by another process: stop that one first") from None
    try:
        yield
    finally:
        os.close(descriptor)


def load_theta(run: RunDirectory, version: int | None = None) -> tuple[np.ndarray, int]:
    """Theta [P] float32 of the run's newest checkpoint, or of the one of a version, and its version.

    Raises UserError when there is none.
    """
    kept = dict(checkpoints.versions(run.path))
    if version is None:
        path = checkpoints.latest_checkpoint(run.path)
    elif version in kept:
        path = kept[version]
    else:
        raise UserError(f"the run {run.name!r} keeps no checkpoint of version {version}: choose one of {sorted(kept)}")
    return checkpoints.load_theta(path), int(path.stem.rpartition("-v")[2])
