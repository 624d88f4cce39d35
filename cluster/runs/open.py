"""Creates or finds the run of a command, and validates its configuration before anything starts."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from cluster.runs import directory
from cluster.runs.directory import RunDirectory
from cluster.runs.learned import check_start, describe_start, find
from common import configfile, files, pretrained, runtime
from common.config import DIGESTED, Config, DatasetConfig, deciding
from common.errors import UserError
from common.pretrained import Pretrained
from learner import checkpoints

DEFAULT = "quickstart"


class Request(NamedTuple):
    """The arguments of `train` and `launch` that choose a run."""

    source: str | None  # a TOML file or a preset; None: the default preset
    name: str | None
    overrides: tuple[str, ...]
    resume: bool = False
    start: str | None = None  # a learned optimizer that outer-training begins with; None: a random theta


class Opened(NamedTuple):
    """The run of a command. A new one is on disk already; of a resumed one, nothing is changed before `apply`."""

    run: RunDirectory
    config: Config  # complete, with the overrides of the command
    before: Config | None = None  # of the run to resume, on disk; None: the run is new
    reached: int = 0  # its version, when it was opened
    note: str = ""  # message for the user

    def apply(self) -> None:
        """Writes the configuration with the overrides. Call with the run locked: another process may be using it."""
        if self.before not in (None, self.config):
            self.run.write_config(self.config)

    def undo(self) -> None:
        """Undoes what this command has changed, unless it has made an update: that was made under its configuration."""
        if self.before is None:
            directory.discard(self.run)
        elif (
            newest_version(self.run) == self.reached and self.before != self.config and self.run.config() == self.config
        ):
            self.run.write_config(self.before)


def open_run(request: Request) -> Opened:
    """Returns the run and its complete configuration.

    Raises:
      UserError: the configuration is invalid, the name is taken, there is no run to resume, or the storage is not
      writable.
    """
    if request.resume and request.start is not None:
        raise UserError("--from begins a new run, and --resume continues one: give one of them")
    return resume(request) if request.resume else create(request)


def create(request: Request) -> Opened:
    """Creates a run. Raises UserError as `open_run`."""
    source = request.source or DEFAULT
    config = absolute(configfile.load(source, request.overrides))
    learned = None
    if request.start is not None:
        runtime.prepare(pin=False)  # before the theta is checked, which loads JAX
        learned = find(request.start)
    if learned is not None:
        check_start(learned, str(request.start), config.optimizer)
    run = directory.create(request.name, config) if request.name else directory.create_free(stem(source), config)
    if learned is not None:
        begin_at(run, learned, str(request.start))
    begins = "" if learned is None else describe_start(learned, str(request.start), config.optimizer)
    return Opened(run, config, note=begins and f"begins {begins}")


def begin_at(run: RunDirectory, learned: Pretrained, source: str) -> None:
    """Makes a new run begin at a theta. Raises UserError where it cannot be written."""
    origin = describe_start(learned, source, run.config().optimizer)
    try:
        pretrained.save(run.start_file, learned._replace(optimizer=run.config().optimizer, origin=origin))
    except OSError as error:
        directory.discard(run)
        raise UserError(f"cannot write {run.start_file}: {files.explain(error)}") from None


def resume(request: Request) -> Opened:
    """Finds the run to resume, and its configuration with the overrides.

    Overrides may not change the sections that define what a sample means. A class store or a text may have moved: its
    fingerprint ensures that the content is the same.

    Raises:
      UserError: there is no such run, or the overrides are invalid.
    """
    run = directory.find(request.name or newest(stem(request.source or DEFAULT)))
    before = run.config()
    config = absolute(configfile.load(str(run.config_file), request.overrides))
    note = "" if request.source is None else differences(request, config, run.name)
    wanted, trained = deciding(config), deciding(before)
    for section in (*DIGESTED, "mixture"):
        if wanted.get(section) != trained.get(section):
            raise UserError(
                f"the run {run.name!r} was trained with another [{section}], so its samples would not be comparable: "
                "leave that section unchanged, or start a new run"
            )
    return Opened(run, config, before, newest_version(run), note)


def newest_version(run: RunDirectory) -> int:
    """The version of the newest checkpoint of the run's lineage; 0 where it has none."""
    return max((version for version, _ in checkpoints.versions(run.path)), default=0)


def differences(request: Request, config: Config, run: str) -> str:
    """Returns a message if the named file differs from the run's own configuration, which is used; else ""."""
    try:
        named = asdict(absolute(configfile.load(str(request.source), request.overrides)))
    except UserError as error:
        return f"{run} resumes with its own configuration; {request.source} could not be compared with it: {error}"
    own = asdict(config)
    pairs = {key: (named[key], own[key]) for key in own if not isinstance(own[key], dict)}
    for section in (key for key in own if isinstance(own[key], dict)):
        pairs |= {f"{section}.{key}": (named[section][key], value) for key, value in own[section].items()}
    differing = [f"{key} = {kept!r} (there: {there!r})" for key, (there, kept) in pairs.items() if there != kept]
    if not differing:
        return ""
    return (
        f"{run} resumes with its own configuration, which differs from {request.source}: {', '.join(differing)}; "
        "--set changes a key"
    )


def newest(name: str) -> str:
    """Returns the most recently created of the runs `name`, `name-2`, ..."""
    known = [n for n in directory.names() if n == name or n.removeprefix(f"{name}-").isdigit()]
    if not known:
        return name
    return max(known, key=lambda n: os.path.getctime(directory.find(n).config_file))


def stem(source: str) -> str:
    """The name of a file or a preset, without folder and suffix."""
    return Path(source).stem


def absolute(config: Config) -> Config:
    """The configuration with absolute paths of its data, valid in every process of the run."""
    mixture = tuple(replace(one, dataset=_absolute(one.dataset)) for one in config.mixture)
    return replace(config, dataset=_absolute(config.dataset), mixture=mixture)


def _absolute(dataset: DatasetConfig) -> DatasetConfig:
    path, text = (place and str(Path(place).expanduser().absolute()) for place in (dataset.path, dataset.text))
    return replace(dataset, path=path, text=text)
