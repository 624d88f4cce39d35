"""What `evaluate`, `baselines` and `search` work on: a run, a theta file, or a configuration without a run."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.cli.options import Place
from cluster.launchers.host import JobHost
from cluster.runs import directory
from cluster.runs.directory import RunDirectory, load_theta
from cluster.runs.open import DEFAULT, absolute, stem
from common import configfile, pretrained
from common.config import Config, OptimizerConfig, deciding
from common.config.inner import names_function
from common.config.system import GROUPS, PAPER, STRONG
from common.errors import UserError

FREE = ("learning_rate", "orthogonalize")  # keys of [optimizer] that a published theta of celo2 does not hold


class Request(NamedTuple):
    """The arguments of a command that computes jobs."""

    target: str  # a run, a theta file or a configuration
    overrides: tuple[str, ...]
    place: Place
    tasks: str | None = None  # the configuration whose tasks a learned optimizer is evaluated on


class Contender(NamedTuple):
    """A learned optimizer that is compared with others on the same tasks."""

    name: str  # as the user gave it
    theta: np.ndarray  # [P] float32
    version: int | None
    optimizer: OptimizerConfig  # of theta


class Subject(NamedTuple):
    """What is evaluated, and the run directory that receives the results."""

    run: RunDirectory
    config: Config
    theta: np.ndarray | None  # [P] float32; None: baselines only
    version: int | None  # of theta; None: not from a run
    contenders: tuple[Contender, ...] = ()  # several learned optimizers, of which theta is the first
    computed_by: str | None = None  # the launched run whose workers compute with --cluster; None: `run`
    only_results: bool = True  # `run` is a folder of results, whose configuration is that of its newest command

    def outdated(self) -> bool:
        """Whether `apply` changes the configuration of the folder of results."""
        return self.only_results and self.run.config() != self.config

    def apply(self) -> None:
        """Writes that configuration, which workers and reports read. Call with `EVALUATION` locked: others may use it."""
        if self.outdated():
            self.run.write_config(self.config)


def find_all(targets: Sequence[str], request: Request) -> Subject:
    """The learned optimizers and, among the baselines, the hand-made ones that the targets name.

    Several learned ones meet on the tasks of --config, of the first run among them, or of the default preset.

    Raises:
      UserError: a target is nothing of this, none is learned, or the workers of a run cannot compare them.
    """
    learned = [target for target in targets if is_run(target) or pretrained.find(target) is not None]
    made = [target for target in targets if target not in learned and is_hand_made(target)]
    if len(targets) == 1 or len(learned) + len(made) < len(targets):
        unknown = next((target for target in targets if target not in (*learned, *made)), targets[0])
        return find_learned(request._replace(target=unknown))
    if not learned:
        raise UserError(
            f"{', '.join(made)}: none of these is learned; compare them with `outertrain baselines CONFIG --baselines ...`"
        )
    several = len(set(learned)) > 1
    subject = _several(learned, request) if several else find_learned(request._replace(target=learned[0]))
    evaluation = subject.config.evaluation
    config = replace(subject.config, evaluation=replace(evaluation, baselines=(*evaluation.baselines, *made)))
    return subject._replace(config=config)


def is_hand_made(target: str) -> bool:
    return target in (*PAPER, *STRONG, *GROUPS) or names_function(target)


def _several(targets: Sequence[str], request: Request) -> Subject:
    contenders = tuple(_contender(target) for target in dict.fromkeys(targets))
    first = next((target for target in targets if is_run(target)), None)
    source = request.tasks or first or DEFAULT
    if request.place.cluster:
        config = _config_of_workers(first, request)
    else:
        known = source if request.tasks or first is None else str(directory.find(first).config_file)
        config = absolute(configfile.load(known, request.overrides))
    asked = _asked(contenders, config, request)
    contenders = tuple(_as_asked(one, asked) for one in contenders)
    if not request.place.cluster:
        config = replace(config, optimizer=contenders[0].optimizer)
    require_tasks(config)
    # A folder for each value that is asked for: results are found by theta, which does not hold it.
    name = "-".join([f"comparison-on-{stem(source)}", *(f"{key}-{value}" for key, value in asked.items())])
    run = results_directory(name, config)
    computed_by = directory.find(first).name if request.place.cluster and first is not None else None
    return Subject(run, config, contenders[0].theta, contenders[0].version, contenders, computed_by)


def _config_of_workers(first: str | None, request: Request) -> Config:
    """That of the first run among several optimizers, whose workers compute with --cluster.

    Raises:
      UserError: no target is a run, or the tasks are not those that its workers know.
    """
    if first is None:
        raise UserError(
            "--cluster computes with the workers of a launched run, and none of these is a run: add one, or leave --cluster out"
        )
    if request.tasks is not None:
        raise UserError(_knows_its_own(first))
    return _evaluation_config(directory.find(first), request)


def _knows_its_own(run: str) -> str:
    return f"the workers of {run} know the tasks of its own configuration only: leave out --config, or --cluster"


def _contender(target: str) -> Contender:
    if is_run(target):
        run = directory.find(target)
        return Contender(target, *load_theta(run), run.config().optimizer)
    path = pretrained.find(target)
    assert path is not None
    theta, optimizer, _ = pretrained.load(path)
    return Contender(target, theta, None, optimizer)


def find_learned(request: Request) -> Subject:
    """The learned optimizer of a run or of a theta file. Raises UserError when the target is neither."""
    if is_run(request.target):
        return of_run(request, learned=True) if request.tasks is None else on_other_tasks(request)
    if (path := pretrained.find(request.target)) is not None:
        return of_file(path, request)
    raise UserError(
        f"{request.target!r} is not a run, an exported theta file or an included one: {known_runs()}; "
        f"included are {', '.join(pretrained.names())}"
    )


def find_tasks(request: Request, *, evaluated: bool = True) -> Subject:
    """The tasks of a run or of a configuration, for hand-designed optimizers. Raises UserError for another target.

    Args:
      evaluated: whether the unseen tasks are those of [evaluation], so that there has to be one.
    """
    if is_run(request.target):
        return of_run(request, learned=False)
    target = Path(request.target)
    if target.suffix == ".toml" or request.target in configfile.preset_names():
        config = absolute(configfile.load(request.target, request.overrides))
        if evaluated:
            require_tasks(config)
        return Subject(results_directory(f"{target.stem}-baselines", config), config, None, None)
    raise UserError(f"{request.target!r} is not a run, a TOML file or a preset: {known_runs()}")


def require_tasks(config: Config) -> None:
    """Raises UserError where an evaluation has no task; before a folder is created for its results."""
    if config.evaluation.tasks < 1:
        raise UserError("evaluation.tasks = 0 leaves nothing to do: give --tasks of at least 1")


def is_run(target: str) -> bool:
    return target in directory.names() or os.path.isfile(Path(target) / "config.toml")  # of a name of any length


def known_runs() -> str:
    return f"runs in {directory.root()} are {', '.join(directory.names()) or 'none'}"


def of_file(path: Path, request: Request) -> Subject:
    """A theta file brings its own [optimizer]; the tasks are those of --config."""
    if request.place.cluster:
        raise UserError(
            f"--cluster computes with the workers of a launched run, and {request.target} is none: name a run as well, which "
            "it is compared with, or leave --cluster out"
        )
    theta, optimizer, _ = pretrained.load(path)
    return _on_tasks(Contender(pretrained.title(path), theta, None, optimizer), request)


def on_other_tasks(request: Request) -> Subject:
    """The learned optimizer of a run, on the tasks of --config instead of its own."""
    run = directory.find(request.target)
    if request.place.cluster:
        raise UserError(_knows_its_own(run.name))
    return _on_tasks(_contender(request.target)._replace(name=run.name), request)


def _on_tasks(one: Contender, request: Request) -> Subject:
    tasks = request.tasks or DEFAULT
    config = absolute(configfile.load(tasks, request.overrides))
    one = _as_asked(one, _asked([one], config, request))
    config = replace(config, optimizer=one.optimizer)
    require_tasks(config)
    return Subject(results_directory(f"{one.name}-on-{stem(tasks)}", config), config, one.theta, one.version)


def _asked(contenders: Sequence[Contender], config: Config, request: Request) -> Mapping[str, Any]:
    """The keys of [optimizer] that --set gives and that theta does not decide, with their values in `config`.

    Raises UserError for other keys of [optimizer] but its family, which have no effect.
    """
    free = FREE if any(one.optimizer.family == "celo2" for one in contenders) else ()
    given = configfile.merge({}, request.overrides).get("optimizer", {})
    for key in given:
        if key not in ("family", *free):
            raise UserError(
                f"--set optimizer.{key} has no effect on {', '.join(one.name for one in contenders)}: theta decides all of "
                f"[optimizer] but {' and '.join(FREE)} of celo2; leave it out"
            )
    return {key: getattr(config.optimizer, key) for key in free if key in given}


def _as_asked(one: Contender, asked: Mapping[str, Any]) -> Contender:
    return one._replace(optimizer=replace(one.optimizer, **asked)) if one.optimizer.family == "celo2" else one


def of_run(request: Request, *, learned: bool) -> Subject:
    run = directory.find(request.target)
    config = _evaluation_config(run, request)
    theta, version = load_theta(run) if learned else (None, None)
    return Subject(run, config, theta, version, only_results=False)


def _evaluation_config(run: RunDirectory, request: Request) -> Config:
    """The configuration of a run with the overrides. Raises UserError where these change what its workers compute."""
    before = run.config()
    config = absolute(configfile.load(str(run.config_file), request.overrides))
    if _places(config) != _places(before) and not request.place.in_process:
        raise UserError(
            "the workers read the run's own dataset.path and dataset.text: change these with train or launch, --resume and "
            "--set, or evaluate with --in-process"
        )
    asked, trained = deciding(config), deciding(before)
    for section in ("task", "dataset", "mixture", "optimizer", "estimator"):
        if asked.get(section) != trained.get(section):
            raise UserError(
                f"[{section}] of a run cannot change in its evaluation, its rows would not be comparable: "
                "evaluate it on other tasks with --config"
            )
    return config


def _places(config: Config) -> list[tuple[str, str]]:
    """Where the data are."""
    return [(data.path, data.text) for data in (config.dataset, *(one.dataset for one in config.mixture))]


def results_directory(name: str, config: Config) -> RunDirectory:
    """A run directory without training, for results: the existing one of the same tasks and [optimizer], or a new one.

    The existing one keeps its configuration until `Subject.apply`. The results of a theta do not repeat those keys of
    [optimizer] that are not in it, such as the rate of celo2.
    """
    deciding_sections = ("task", "dataset", "mixture", "optimizer", "estimator")
    for known in directory.names():
        if re.fullmatch(rf"{re.escape(name)}(-\d+)?", known):
            run = directory.find(known)
            before = run.config()
            if all(getattr(before, section) == getattr(config, section) for section in deciding_sections):
                return run
    return directory.create_free(name, config)


def make_pool(subject: Subject, place: Place) -> JobHost:
    """Where the jobs are computed."""
    run, config = subject.run, subject.config
    if place.cluster:
        from cluster.launchers.ray_cluster import LaunchedJobs

        return LaunchedJobs(subject.computed_by or run.name)
    if place.in_process:
        from common import runtime

        runtime.prepare(pin=False)  # before the next import, which loads JAX
        from cluster.launchers.in_process import InProcessJobs

        return InProcessJobs(config)
    from cluster.launchers.local import LocalJobs

    return LocalJobs(run, config, config.workers.count)
