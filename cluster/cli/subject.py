"""What `evaluate`, `baselines` and `search` work on: a run, a theta file, or a configuration without a run."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cluster.cli.options import Place
from cluster.launchers.host import JobHost
from cluster.runs import directory
from cluster.runs.directory import RunDirectory, load_theta
from cluster.runs.open import DEFAULT, absolute, stem
from common import configfile, pretrained
from common.config import Config
from common.errors import UserError


class Request(NamedTuple):
    """The arguments of a command that computes jobs."""

    target: str  # a run, a theta file or a configuration
    overrides: tuple[str, ...]
    place: Place
    tasks: str | None = None  # the configuration whose tasks a theta file is evaluated on


class Subject(NamedTuple):
    """What is evaluated, and the run directory that receives the results."""

    run: RunDirectory
    config: Config
    theta: np.ndarray | None  # [P] float32; None: baselines only
    version: int | None  # of theta; None: not from a run


def find_learned(request: Request) -> Subject:
    """The learned optimizer of a run or of a theta file. Raises UserError when the target is neither."""
    if is_run(request.target):
        return of_run(request, learned=True)
    if (path := pretrained.find(request.target)) is not None:
        return of_file(path, request)
    raise UserError(
        f"{request.target!r} is not a run, an exported theta file or an included one: {known_runs()}; "
        f"included are {', '.join(pretrained.names())}"
    )


def find_tasks(request: Request) -> Subject:
    """The tasks of a run or of a configuration, for hand-designed optimizers. Raises UserError for another target."""
    if is_run(request.target):
        return of_run(request, learned=False)
    target = Path(request.target)
    if target.suffix == ".toml" or request.target in configfile.preset_names():
        config = absolute(configfile.load(request.target, request.overrides))
        return Subject(results_directory(f"{target.stem}-baselines", config), config, None, None)
    raise UserError(f"{request.target!r} is not a run, a TOML file or a preset: {known_runs()}")


def is_run(target: str) -> bool:
    return target in directory.names() or (Path(target) / "config.toml").is_file()


def known_runs() -> str:
    return f"runs in {directory.root()} are {', '.join(directory.names()) or 'none'}"


def of_file(path: Path, request: Request) -> Subject:
    """A theta file brings its own [optimizer]; the tasks are those of --config."""
    theta, optimizer, _ = pretrained.load(path)
    tasks = request.tasks or DEFAULT
    config = replace(absolute(configfile.load(tasks, request.overrides)), optimizer=optimizer)
    return Subject(results_directory(f"{path.stem}-on-{stem(tasks)}", config), config, theta, None)


def of_run(request: Request, *, learned: bool) -> Subject:
    run = directory.find(request.target)
    before = run.config()
    config = absolute(configfile.load(str(run.config_file), request.overrides))
    if config.dataset.path != before.dataset.path and not request.place.in_process:
        raise UserError(
            "the workers read the run's own dataset.path: change it with train or launch, --resume and --set, or evaluate "
            "with --in-process"
        )
    compared = replace(config, dataset=replace(config.dataset, path=before.dataset.path))
    for section in ("task", "dataset", "optimizer", "estimator"):
        if getattr(compared, section) != getattr(before, section):
            raise UserError(
                f"[{section}] of a run cannot change in its evaluation, its rows would not be comparable: "
                "export theta, and evaluate the file with --config"
            )
    theta, version = load_theta(run) if learned else (None, None)
    return Subject(run, config, theta, version)


def results_directory(name: str, config: Config) -> RunDirectory:
    """A run directory without training, for results: a new one, or the existing one if its tasks are the same."""
    if name not in directory.names():
        return directory.create(name, config)
    run = directory.find(name)
    before = run.config()
    if (before.task, before.dataset, before.estimator) != (config.task, config.dataset, config.estimator):
        return directory.create(directory.free_name(name), config)
    run.write_config(config)
    return run


def make_pool(subject: Subject, place: Place) -> JobHost:
    """Where the jobs are computed."""
    run, config = subject.run, subject.config
    if place.cluster:
        from cluster.launchers.ray_cluster import LaunchedJobs

        return LaunchedJobs(run.name)
    if place.in_process:
        from common import runtime

        runtime.prepare(pin=False)  # before the next import, which loads JAX
        from cluster.launchers.in_process import InProcessJobs

        return InProcessJobs(config)
    from cluster.launchers.local import LocalJobs

    return LocalJobs(run, config, config.workers.count)
