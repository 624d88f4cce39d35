"""`evaluate` and `baselines` as jobs of their own, on a run, an exported theta or a configuration."""

import json
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.cli import console
from cluster.cli.interrupt import Interrupt
from cluster.cli.train import counter, process_start
from cluster.jobs.evaluation import Progress, evaluate, summary_of, tune
from cluster.jobs.job import Pool
from cluster.jobs.search import Size, searched
from cluster.report.page import write_report
from cluster.report.table import final_table
from cluster.runs import directory
from cluster.runs.directory import EVALUATION, RunDirectory, exclusive, load_theta
from cluster.runs.open import DEFAULT, absolute, stem
from common import configfile, pretrained
from common.config import Config
from common.errors import UserError


class Request(NamedTuple):
    target: str  # a run, a theta file or a configuration
    config: str | None  # of a theta file
    overrides: tuple[str, ...]
    in_process: bool
    json: bool
    cluster: bool = False  # by the workers of the launched run


class Subject(NamedTuple):
    """What is evaluated, and the run directory that takes the results."""

    run: RunDirectory
    config: Config
    theta: np.ndarray | None  # None: baselines alone
    version: int | None


def assess(request: Request, with_learned: bool) -> int:
    """Returns the exit code. Raises Interrupted when the user stops it."""
    began = process_start()
    subject = find_subject(request, with_learned)
    run, config = subject.run, subject.config
    if config.evaluation.tasks < 1:
        raise UserError("evaluation.tasks = 0 leaves nothing to do: give --tasks of at least 1")
    with exclusive(run, EVALUATION), Interrupt() as interrupt, console.make() as show:
        show.say(f"results in {run.evaluation}")
        with make_pool(run, config, request) as pool:
            compute(subject, pool.pool(), counter("evaluating" if with_learned else "tuning", interrupt, show))
        facts = {
            "run": run.name,
            "version": subject.version,
            "seconds_to_first_update": None,
            "seconds_total": time.time() - began,
            **summary_of(run, config, subject.theta),
            "report": str(run.page),
        }
        if subject.theta is not None and subject.version is None:
            run.write_summary(facts)  # of several files of theta, this is the one that table and page are about
        page = write_report(run.path)
        show.say(final_table(run, config))
        show.say(f"report: {page}")
    if request.json:
        print(json.dumps(facts), flush=True)
    return 0


def search(request: Request, size: Size) -> int:
    """The random search over Adam's eight hyper-parameters; returns the exit code."""
    subject = find_subject(request, with_learned=False)
    run, config = subject.run, subject.config
    with exclusive(run, "search.lock"), Interrupt() as interrupt, console.make() as show:
        with make_pool(run, config, request) as pool:
            found = searched(run, config, size, pool.pool(), counter("searching", interrupt, show))
        for loss, best in found.items():
            show.say(f"best by {loss} loss, {best.loss:.4f} over {best.runs} runs: {best.path}\n  {best.shown}")
    if request.json:
        print(json.dumps({loss: best._asdict() | {"path": str(best.path)} for loss, best in found.items()}), flush=True)
    return 0


def compute(subject: Subject, pool: Pool, progress: Progress) -> None:
    run, config, theta, version = subject
    if theta is None:
        tune(run, config, pool, progress)
    else:
        evaluate(run, config, theta, version, pool, progress)


def find_subject(request: Request, with_learned: bool) -> Subject:
    """Raises UserError when the target is neither a run nor what else the command takes."""
    target = Path(request.target)
    if request.target in directory.names() or (target / "config.toml").is_file():
        return of_run(request, with_learned)
    path = pretrained.find(request.target)
    if with_learned and path is not None:
        return of_file(path, request)
    if not with_learned and (target.suffix == ".toml" or request.target in configfile.preset_names()):
        config = absolute(configfile.load(request.target, request.overrides))
        return Subject(results_directory(f"{target.stem}-baselines", config), config, None, None)
    takes = "a run, an exported theta file or a shipped one" if with_learned else "a run, a TOML file or a preset"
    known = f"runs in {directory.root()} are {', '.join(directory.names()) or 'none'}"
    if with_learned:
        known += f"; shipped are {', '.join(pretrained.names())}"
    raise UserError(f"{request.target!r} is not {takes}: {known}")


def of_file(path: Path, request: Request) -> Subject:
    """A theta file brings its own [optimizer]; the tasks are those of --config."""
    from common.optimizer import make_family  # JAX: only once it is known that there is work

    theta, optimizer, _ = pretrained.load(path)
    tasks = request.config or DEFAULT
    config = replace(absolute(configfile.load(tasks, request.overrides)), optimizer=optimizer)
    size = make_family(optimizer).size
    if len(theta) != size:
        raise UserError(f"{path} holds {len(theta)} parameters, but its optimizer has {size}: export it again")
    return Subject(results_directory(f"{path.stem}-on-{stem(tasks)}", config), config, theta, None)


def of_run(request: Request, with_learned: bool) -> Subject:
    run = directory.find(request.target)
    before = run.config()
    config = absolute(configfile.load(str(run.config_file), request.overrides))
    if config.dataset.path != before.dataset.path and not request.in_process:
        raise UserError(
            "the workers read the run's own dataset.path: change it with train or launch, --resume and --set, or evaluate "
            "with --in-process"
        )
    at_home = replace(config, dataset=replace(config.dataset, path=before.dataset.path))
    for section in ("task", "dataset", "optimizer", "estimator"):
        if getattr(at_home, section) != getattr(before, section):
            raise UserError(
                f"[{section}] of a run cannot change in its evaluation, its rows would not be comparable: "
                "export theta, and evaluate the file with --config"
            )
    theta, version = load_theta(run) if with_learned else (None, None)
    return Subject(run, config, theta, version)


def results_directory(name: str, config: Config) -> RunDirectory:
    """A run directory without training, which keeps the results: made, or gone on with if its tasks are the same."""
    if name not in directory.names():
        return directory.create(name, config)
    run = directory.find(name)
    before = run.config()
    if (before.task, before.dataset, before.estimator) != (config.task, config.dataset, config.estimator):
        return directory.create(directory.free_name(name), config)
    run.write_config(config)
    return run


def make_pool(run: RunDirectory, config: Config, request: Request) -> AbstractContextManager[Any]:
    if request.cluster:
        from cluster.launchers.ray_cluster import launched_fleet

        return launched_fleet(run.name)
    if request.in_process:
        from common import runtime

        runtime.prepare(pin=False)
        from cluster.launchers.in_process import JobsInProcess

        return JobsInProcess(config)
    from cluster.launchers.local import LocalFleet

    return LocalFleet(run, config, config.workers.count)
