"""Finding or making the run that a command is about, with its configuration checked before anything starts."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cluster.runs import directory
from cluster.runs.directory import RunDirectory
from common import configfile
from common.config import DIGESTED, Config
from common.errors import UserError

DEFAULT = "quickstart"


class Request(NamedTuple):
    """What `train` and `launch` were asked for."""

    source: str | None  # a TOML file or a preset
    name: str | None
    overrides: tuple[str, ...]
    resume: bool = False


class Opened(NamedTuple):
    """The run of a command, and how to leave things as they were if it cannot work after all."""

    run: RunDirectory
    undo: Callable[[], None]
    note: str = ""  # what the person who asked should know


def open_run(request: Request) -> Opened:
    """The run to work on, whose directory holds its complete configuration.

    Raises:
      UserError: a bad configuration, a name that is taken, no run to go on with, or a place that is not writable.
    """
    return resume(request) if request.resume else create(request)


def create(request: Request) -> Opened:
    source = request.source or DEFAULT
    config = absolute(configfile.load(source, request.overrides))
    run = directory.create(request.name or directory.free_name(stem(source)), config)
    return Opened(run, partial(directory.discard, run))


def resume(request: Request) -> Opened:
    """Keys that decide what a sample means stay as they were; others may change, by overrides.

    A class store may have moved: whether its content is the same, its fingerprint tells.
    """
    run = directory.find(request.name or newest(stem(request.source or DEFAULT)))
    before = run.config()
    config = absolute(configfile.load(str(run.config_file), request.overrides))
    note = "" if request.source is None else differences(request, config, run.name)
    at_home = replace(config, dataset=replace(config.dataset, path=before.dataset.path))
    for section in DIGESTED:
        if getattr(at_home, section) != getattr(before, section):
            raise UserError(
                f"the run {run.name!r} was trained with another [{section}], so its samples would mean something else: "
                "leave that section as it is, or start a new run"
            )
    if config == before:
        return Opened(run, lambda: None, note)
    run.write_config(config)
    return Opened(run, partial(run.write_config, before), note)


def differences(request: Request, config: Config, run: str) -> str:
    """The run's own configuration counts, not the file that was named: where they differ, this says so."""
    try:
        named = asdict(absolute(configfile.load(str(request.source), request.overrides)))
    except UserError as error:
        return f"{run} goes on with its own configuration; {request.source} was not compared with it: {error}"
    own = asdict(config)
    pairs = {key: (named[key], own[key]) for key in own if not isinstance(own[key], dict)}
    for section in (key for key in own if isinstance(own[key], dict)):
        pairs |= {f"{section}.{key}": (named[section][key], value) for key, value in own[section].items()}
    differing = [f"{key} = {kept!r} (there: {there!r})" for key, (there, kept) in pairs.items() if there != kept]
    if not differing:
        return ""
    return (
        f"{run} goes on with its own configuration, which differs from {request.source}: {', '.join(differing)}; "
        "--set changes a key"
    )


def newest(name: str) -> str:
    """Of the runs `name`, `name-2`, ..., the one made last."""
    known = [n for n in directory.names() if n == name or n.removeprefix(f"{name}-").isdigit()]
    if not known:
        return name
    return max(known, key=lambda n: os.path.getctime(directory.root() / n / "config.toml"))


def stem(source: str) -> str:
    return Path(source).stem


def absolute(config: Config) -> Config:
    """Paths that mean the same in every process of the run."""
    if not config.dataset.path:
        return config
    path = str(Path(config.dataset.path).expanduser().absolute())
    return replace(config, dataset=replace(config.dataset, path=path))
