"""`outertrain train`: a whole run on this machine: outer-training, evaluation on unseen tasks, report."""

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cluster.cli import STARTED, console, options
from cluster.cli.console import counter
from cluster.cli.dry_step import check_task
from cluster.cli.interrupt import Interrupt, Interrupted
from cluster.launchers.host import RunHost
from cluster.monitoring import progress
from cluster.monitoring.run_status import RunStatus
from cluster.runs.best import read as read_best
from cluster.runs.directory import EVALUATION, RunDirectory, exclusive, load_theta, shell_command
from cluster.runs.learned import find
from cluster.runs.open import Request, newest_version, open_run
from cluster.tracking.tracker import missing, store
from common import pretrained
from common.config import Config, OuterConfig
from common.errors import UserError
from common.update_record import expected_updates
from learner.history import read_history
from learner.status import LearnerStatus

if TYPE_CHECKING:
    from cluster.jobs.evaluation import InterimEvaluation


class Mode(NamedTuple):
    """How the command runs and what it does besides training."""

    in_process: bool = False  # no Ray, deterministic
    evaluate: bool = True
    as_json: bool = False


@click.command()
@click.argument("source", metavar="[CONFIG]", required=False)
@click.option("--name", metavar="RUN", help="Name of the run (default: that of CONFIG).")
@options.overrides("workers", "updates")
@options.resume
@options.start
@click.option("--in-process", is_flag=True, help="Use one process, without Ray; deterministic.")
@click.option("--no-evaluate", "evaluate", flag_value=False, default=True, help="Train only.")
@options.as_json
def command(*, in_process: bool, evaluate: bool, as_json: bool, **request: Any) -> int:
    """Train, evaluate and report on this machine.

    CONFIG is a TOML file or a preset (default: quickstart).
    """
    return train(Request(**request), Mode(in_process, evaluate, as_json))


def train(request: Request, mode: Mode) -> int:
    """Returns the exit code. Raises Interrupted when the user stops it; the run then has a checkpoint."""
    opened = open_run(request)
    run, config = opened.run, opened.config
    with ExitStack() as stack:
        try:
            stack.enter_context(held(run, mode, config))
            opened.apply()
            interrupt, show = stack.enter_context(Interrupt()), stack.enter_context(console.make())
            if opened.note:
                show.say(opened.note)
            show.say(f"run {run.name}: {extent(config.outer)}, results in {run.path}")
            for found in (tried(config, interrupt), missing(config)):
                if found:
                    show.say(found)
            work(run, config, mode, interrupt, show)
        except (UserError, NotBegun):
            opened.undo()
            raise
        facts = conclude(run, config, show)
    if mode.as_json:
        print(json.dumps(facts), flush=True)
    return 0


class NotBegun(Interrupted):
    """The user has stopped the command before the training."""


def tried(config: Config, interrupt: Interrupt) -> str:
    """What `check_task` says. Raises NotBegun when the user stops it."""
    try:
        return check_task(config, interrupt.check)
    except Interrupted:
        raise NotBegun("stopped before the training") from None


@contextmanager
def held(run: RunDirectory, mode: Mode, config: Config) -> Iterator[None]:
    """Locks the run, and its evaluation if the command evaluates."""
    with ExitStack() as stack:
        stack.enter_context(exclusive(run))
        if mode.evaluate or config.evaluation.every:
            stack.enter_context(exclusive(run, EVALUATION))
        yield


def work(run: RunDirectory, config: Config, mode: Mode, interrupt: Interrupt, show: console.Display) -> None:
    """Trains and evaluates. Raises Interrupted, which says what is on disk."""
    reached = LearnerStatus()
    try:
        with make_host(run, config, in_process=mode.in_process) as host:
            from cluster.jobs.evaluation import InterimEvaluation, evaluate
            from cluster.jobs.families import parts
            from workers.evaluation.jobs import Learned

            interim = InterimEvaluation(run, config, host.pool())
            try:
                follow(host, config, interim, interrupt, show)
            except Interrupted:
                reached = host.status().learner
                raise
            judged = mode.evaluate and config.evaluation.tasks > 0
            if judged:
                for part in parts(run, config):
                    told = counter(f"evaluating{part.title}", interrupt, show)
                    evaluate(part.run, part.config, [Learned(*load_theta(run))], part.pool(host.pool()), told)
            interim.conclude(counter("choosing the best version", interrupt, show) if judged else None)
    except Interrupted:  # the host is closed: it has tried to write the newest version
        raise Interrupted(stopped(run, reached)) from None


def stopped(run: RunDirectory, reached: LearnerStatus) -> str:
    """The message for the user who has interrupted a run: how to resume it, and what is lost."""
    resume = f"resume with: outertrain train --name {shlex.quote(run.name)} --resume"
    saved = newest_version(run)
    if saved >= reached.version:
        return f"stopped with a checkpoint; {resume}"
    why = reached.checkpoint_error or "its checkpoint could not be written"
    return f"stopped at version {reached.version}, but version {saved} is the last one on disk ({why}); {resume}"


def make_host(run: RunDirectory, config: Config, *, in_process: bool) -> RunHost:
    if in_process:
        from common import runtime

        runtime.prepare(pin=False)  # before the next import, which loads JAX
        from cluster.launchers.in_process import InProcessRun

        return InProcessRun(run, config)
    from cluster.launchers.local import LocalRun

    return LocalRun(run, config)


def follow(
    host: RunHost, config: Config, interim: "InterimEvaluation", interrupt: Interrupt, show: console.Display
) -> None:
    """Displays the progress of the training until all its updates are done. Raises Interrupted."""
    going = True
    while going:
        interrupt.check()
        going = host.advance()
        status = host.status()
        show.training(summarise(status, config))
        interim.step(status.learner.version)


def extent(outer: OuterConfig) -> str:
    """How long the run is."""
    updates = f"{outer.updates} outer updates"
    return f"{outer.inner_steps:,} inner steps or {updates}" if outer.inner_steps else updates


def summarise(status: RunStatus, config: Config) -> progress.Progress:
    target = expected_updates(config.outer, status.records[-1] if status.records else None)
    learner = status.learner
    return progress.summarise(status.records, learner.version, target, status.fleet, time.time(), learner.epoch)


def conclude(run: RunDirectory, config: Config, show: console.Display) -> dict[str, Any]:
    """The report, the final table, and what --json prints."""
    from cluster.cli.families import of_each, texts
    from cluster.jobs.evaluation import summary_of
    from cluster.report.page import write_report
    from cluster.report.table import final_table
    from cluster.runs.cost import outer_training_cost
    from workers.evaluation.comparison import read_evaluation
    from workers.evaluation.jobs import digest_of

    theta, version = load_theta(run)
    evaluation = read_evaluation(run.evaluation, config, digest_of(theta))
    families = of_each(run, config, theta)
    page, best = write_report(run.path, evaluation), read_best(run)
    facts = {
        "run": run.name,
        "version": version,
        "seconds_to_first_update": first_update(run, STARTED),
        "seconds_total": time.time() - STARTED,
        **summary_of(evaluation.comparison, config, theta),
        **({"families": {name: one.facts for name, one in families.items()}} if families else {}),
        "best": None if best is None else best.to_json(),
        "report": str(page),
    }
    run.write_summary(facts)
    table = final_table(evaluation.comparison, run.name, outer_training_cost(run.path, config))
    show.say(texts(families, run.name) if families else table)
    if best is not None:
        show.say(
            f"best: {best.sentence()}; `{shell_command('export', run.name, '--version', 'best')} -o FILE` takes it"
        )
    show.say(f"report: {page}")
    for problem in store(run, artifacts(run)):
        show.say(problem)
    return facts


def artifacts(run: RunDirectory) -> list[Path]:
    """The files that trackers receive at the end: report, configuration, and theta as a theta file, if it can be written."""
    if not run.config().tracking.sinks:
        return []
    path = run.path / "tracking" / "learned.theta"
    try:
        path.parent.mkdir(exist_ok=True)
        pretrained.save(path, find(str(run.path)))
    except OSError:  # the run is complete, and its checkpoint holds theta
        return [run.page, run.config_file]
    return [run.page, run.config_file, path]


def first_update(run: RunDirectory, began: float) -> float | None:
    """Seconds from the start of this command to its first outer update; None when it made none."""
    times = [record.time for record in read_history(run.path) if record.time >= began]
    return min(times) - began if times else None
