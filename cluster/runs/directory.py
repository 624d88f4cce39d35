"""A run on disk: `runs/<name>/`. Owns the path of every file of a run, and the locks that give one process its use."""

import errno
import json
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from common import configfile, files
from common.config import Config
from common.errors import UserError
from learner import checkpoints, history, lineage

ROOT_VARIABLE = "OUTERTRAIN_RUNS"
TRAINING, EVALUATION, SEARCH = "lock", "evaluation.lock", "search.lock"  # lock files of a run, for `exclusive`
DISCARD_TRIES = 50
LOG_BYTES = 2**20  # of the end of a log, which is all that a command reads
LONGEST_NAME = 200  # bytes; file systems allow 255, with what is appended to it


def root() -> Path:
    """The folder of all runs: $OUTERTRAIN_RUNS, or `runs` in the current directory."""
    return Path(os.environ.get(ROOT_VARIABLE) or "runs").absolute()


class LogFile(logging.FileHandler):
    """Appends the log records of this process to a file until it is closed. The file is created by the first record.

    Records are lost while the file cannot be written: that must not end a process.
    """

    PACKAGES = ("cluster", "common", "learner", "workers")  # logged from level INFO

    def __init__(self, path: Path):
        super().__init__(path, delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._levels = {package: logging.getLogger(package).level for package in self.PACKAGES}
        for package in self.PACKAGES:
            logging.getLogger(package).setLevel(logging.INFO)
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        logging.getLogger().removeHandler(self)
        for package, level in self._levels.items():
            logging.getLogger(package).setLevel(level)
        super().close()


class RunDirectory:
    """The paths of a run's files, and those files that have no module of their own.

    The learner, which does not import `cluster`, derives its paths itself: `checkpoints/`, `epochs/`, `journal/` and
    `history.jsonl`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.name = path.name
        self.config_file = path / "config.toml"
        self.start_file = path / "start.theta"  # what outer-training began with, if --from named it
        self.checkpoints = path / "checkpoints"
        self.epochs = path / "epochs"  # one record per start of the learner (learner.lineage)
        self.history = path / history.FILE  # one record per outer update
        self.journal = path / "journal"  # the applied payloads, if outer.journal is on
        self.evaluation = path / "evaluation"
        self.summary = self.evaluation / "summary.json"
        self.best_file = self.evaluation / "best.json"
        self.evaluated = (
            path / "evaluated"
        )  # checkpoints that are candidates for the best version (cluster.jobs.candidates)
        self.report = path / "report"
        self.page = self.report / "index.html"
        self.log_file = path / "log.txt"
        self._fleet_file = path / "fleet.json"
        self._failure_file = path / "failure.txt"

    def results_file(self, job: str) -> Path:
        """The JSON lines of a job's results, for example of "search-200x16"."""
        return self.evaluation / f"{job}.jsonl"

    def of_family(self, name: str) -> "RunDirectory":
        """The folder of the evaluation on one family of a mixture, with a configuration of that family alone."""
        return RunDirectory(self.path / "families" / name)

    def target_file(self, role: str) -> Path:
        """The Prometheus target file of the "learner" or the "fleet"."""
        return self.path / f"metrics-{role}.json"

    def config(self) -> Config:
        return configfile.load(str(self.config_file))

    def write_config(self, config: Config) -> None:
        files.replace(self.config_file, configfile.dump(config))

    def start_log(self) -> LogFile:
        """Appends what this process logs to the run's log, from now on until the handler is closed."""
        return LogFile(self.log_file)

    def log(self, lines: int) -> str:
        """The last lines of the run's log, of its last `LOG_BYTES`; "" when there is no log."""
        if not self.log_file.exists():
            return ""
        with open(self.log_file, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - LOG_BYTES)
            file.seek(start)
            found = file.read().decode(errors="replace").splitlines(keepends=True)
        return "".join(found[1 if start else 0 :][-lines:])  # the first line may be torn

    def worker_target(self) -> int | None:
        """The number of workers that was last asked for; None when the run was never scaled."""
        try:
            return int(json.loads(self._fleet_file.read_text())["workers"])
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self._fleet_file} is corrupt ({error}): delete it and scale again") from None

    def save_worker_target(self, workers: int) -> None:
        files.replace(self._fleet_file, json.dumps({"workers": workers}) + "\n")

    def last_failure(self) -> str | None:
        """The traceback of the worker that failed last; None when none has failed since the run was scaled."""
        if not self._failure_file.exists():
            return None
        return self._failure_file.read_text(errors="replace") or None  # whatever a user's code has put into its error

    def save_failure(self, traceback: str | None) -> None:
        files.replace(self._failure_file, traceback or "")

    def write_summary(self, facts: dict[str, Any]) -> None:
        """Saves what `--json` prints."""
        files.replace(self.summary, json.dumps(facts) + "\n")


class NameTaken(UserError):
    """A run of this name exists."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the run {name!r} exists already ({root() / name}): resume it with --resume, or choose another --name"
        )


def create(name: str, config: Config) -> RunDirectory:
    """Creates a run directory with its configuration, atomically.

    Raises:
      NameTaken: a run of this name exists.
      UserError: the name is invalid, or the storage is not writable or full.
    """
    check_name(name)
    path = root() / name
    if path.exists():
        raise NameTaken(name)
    scratch = None
    try:
        root().mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root()))
        created = RunDirectory(scratch)
        created.write_config(config)
        for folder in (created.checkpoints, created.evaluation):
            folder.mkdir()
        scratch.chmod(0o755)
        os.rename(scratch, path)
    except (OSError, UnicodeEncodeError) as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, UnicodeEncodeError):  # TOML cannot hold it
            lines = [line for line in configfile.dump(config).splitlines() if not line.isprintable()]
            raise UserError(
                f"the configuration names what is not UTF-8 text ({lines[0]!r}): rename that folder"
            ) from None
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and path.exists():  # another process was faster
            raise NameTaken(name) from None
        raise UserError(f"cannot create the run directory {path}: {files.explain(error)}") from None
    return RunDirectory(path)


def create_free(stem: str, config: Config) -> RunDirectory:
    """Creates a run directory with the first free name of `free_name`. Raises UserError as `create`."""
    while True:
        with suppress(NameTaken):  # by a process that started at the same time: the next name
            return create(free_name(stem), config)


def discard(run: RunDirectory) -> None:
    """Removes a run that has made no outer update. A process that is just ending may still write there for a moment.

    Raises OSError when the directory cannot be removed.
    """
    for left in reversed(range(DISCARD_TRIES)):
        if any(position.version for position in checkpoints.positions(run.checkpoints)):
            return
        shutil.rmtree(run.path, ignore_errors=left > 0)
        if not run.path.exists():
            return
        time.sleep(0.1)


def find(name: str) -> RunDirectory:
    """Returns an existing run, given its name or its path. Raises UserError when there is none."""
    for run in (RunDirectory(root() / name), RunDirectory(Path(name).absolute())):
        if os.path.isfile(run.config_file):  # Path.is_file raises for names that are too long
            return run
    known = ", ".join(names()) or "none"
    raise UserError(f"no run {name!r} in {root()} (runs there: {known})")


def names() -> list[str]:
    """Names of all runs in `root()`, sorted."""
    return sorted(p.parent.name for p in root().glob("*/config.toml") if not p.parent.name.startswith("."))


def free_name(stem: str) -> str:
    """Returns the first of `stem`, `stem-2`, `stem-3`, ... that is not taken."""
    taken, number = set(names()), 1
    while (name := stem if number == 1 else f"{stem}-{number}") in taken or os.path.exists(root() / name):
        number += 1
    return name


def shell_command(command: str, run: str, *options: str) -> str:
    """The outertrain command for a run as a person types it, quoted for the shell."""
    words = ["outertrain", command, *options, *(["--"] if run.startswith("-") else []), run]
    return shlex.join(words)


def check_name(name: str) -> None:
    """Raises UserError when a name is not allowed."""
    size = len(name.encode(errors="surrogateescape"))
    if size > LONGEST_NAME:
        raise UserError(f"the name of the run has {size} bytes: use at most {LONGEST_NAME}")
    if not name or name.startswith((".", "-")) or not all(c.isalnum() or c in "._-" for c in name):
        raise UserError(f"{name!r} cannot name a run: use letters, digits, '.', '_' and '-', and start with a letter")


@contextmanager
def exclusive(run: RunDirectory, lock: str = TRAINING) -> Iterator[None]:
    """Gives this process the exclusive use of a run, until it leaves the block or ends in any way, SIGKILL included.

    A run may be evaluated by one process while it is trained by another: the two uses have locks of their own.

    Raises:
      UserError: another process holds the lock, or the run directory is not writable.
    """
    from filelock import FileLock, Timeout  # 40 ms, which `--help` and `status` need not pay

    # flock only: filelock's fallback is a file that would outlive a killed process.
    held = FileLock(run.path / lock, mode=0o644, thread_local=False, fallback_to_soft=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        raise UserError(f"the run {run.name!r} is in use by another process: stop that one first") from None
    except OSError as error:
        raise UserError(f"cannot write in the run directory {run.path}: {files.explain(error)}") from None
    try:
        yield
    finally:
        held.release()


def load_theta(run: RunDirectory, version: int | None = None) -> tuple[np.ndarray, int]:
    """Returns theta [P] float32 of the newest checkpoint, or of a given version, and its version.

    Raises UserError when there is no such checkpoint.
    """
    chain = lineage.lineage(run.epochs)
    places = [p for p in checkpoints.positions(run.evaluated) if lineage.contains(chain, p)]
    kept = {p.version: checkpoints.path_of(run.evaluated, p) for p in places} | dict(checkpoints.versions(run.path))
    if version is None:
        path = checkpoints.latest_checkpoint(run.path)
    elif version in kept:
        path = kept[version]
    else:
        raise UserError(f"the run {run.name!r} has no checkpoint of version {version}: choose one of {sorted(kept)}")
    return checkpoints.load_theta(path), int(path.stem.rpartition("-v")[2])
