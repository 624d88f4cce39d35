"""`outertrain evaluate`: compares a learned optimizer with tuned baselines on unseen tasks."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import click

from cluster.cli import STARTED, console, options
from cluster.cli.console import counter
from cluster.cli.dry_step import check_task
from cluster.cli.families import OfFamily, texts
from cluster.cli.interrupt import Interrupt
from cluster.cli.options import Place
from cluster.cli.subject import Request, Subject, find_all, make_pool, require_tasks
from cluster.jobs.evaluation import evaluate, numbers_of, summary_of
from cluster.jobs.families import parts
from cluster.jobs.job import Pool, Progress
from cluster.report.page import write_report
from cluster.report.table import final_table, several_table
from cluster.runs.cost import outer_training_cost
from cluster.runs.directory import EVALUATION, exclusive
from common.config import Config
from common.errors import UserError
from workers.evaluation.comparison import read_evaluation
from workers.evaluation.jobs import Learned, digest_of

Compute = Callable[[Subject, Pool, Progress], None]


class Manner(NamedTuple):
    """How `assess` evaluates."""

    activity: str  # that is shown
    pool: bool = False  # several learned optimizers are scored as a single one as well
    family: str | None = None  # of a mixture: the only one that is evaluated


@click.command(cls=options.ListCommand)
@click.argument("targets", metavar="RUN|THETA|NAME...", nargs=-1, required=True)
@click.option(
    "--config",
    metavar="CONFIG",
    help="The tasks: a TOML file or a preset (default: a run's own; of a theta file: quickstart).",
)
@options.overrides("tasks", "baselines", "workers")
@options.place
@click.option("--family", metavar="FAMILY", help="Of a mixture: only the tasks of this family (default: each in turn).")
@click.option("--pool", is_flag=True, help="Also score the learned optimizers as one, trained with several seeds.")
@options.as_json
def command(
    *,
    targets: tuple[str, ...],
    config: str | None,
    overrides: tuple[str, ...],
    place: Place,
    as_json: bool,
    **how: Any,
) -> int:
    """Compare learned optimizers with tuned baselines on unseen tasks.

    RUN|THETA|NAME is a run, a theta file, the name of an included optimizer, or a hand-made one: a baseline, or a
    module:function of your own. Several learned ones are compared on the same tasks. A mixture is evaluated family by
    family, each in a folder of its own.
    """
    request = Request(targets[0], overrides, place, config)

    def compute(subject: Subject, pool: Pool, progress: Progress) -> None:
        evaluate(subject.run, subject.config, learned_of(subject), pool, progress)

    subject = find_all(targets, request)
    manner = Manner("evaluating", **how)
    if manner.pool and not subject.contenders:
        raise UserError("--pool averages over several learned optimizers: name the runs of two seeds or more")
    facts = assess(subject, place, compute, manner)
    if as_json:
        print(json.dumps(facts), flush=True)
    return 0


def learned_of(subject: Subject) -> list[Learned]:
    """The learned optimizers, each with its [optimizer] where it is another one than the configuration's."""
    if not subject.contenders:
        assert subject.theta is not None
        return [Learned(subject.theta, subject.version)]
    own = subject.config.optimizer
    return [
        Learned(one.theta, one.version, None if one.optimizer == own else json.dumps(asdict(one.optimizer)))
        for one in subject.contenders
    ]


def check_own(config: Config) -> None:
    """Raises UserError where an optimizer of the user's own cannot be used, before workers fail on it."""
    own = [name for name in config.evaluation.optimizers if ":" in name]
    if own:
        from workers.evaluation.baselines import family  # loads JAX

        for name in own:
            family(name)


def assess(subject: Subject, place: Place, compute: Compute, manner: Manner) -> dict[str, Any]:
    """Computes what is missing of an evaluation, writes the report, prints the tables and returns what --json prints.

    Raises Interrupted when the user stops it.
    """
    run, config = subject.run, subject.config
    require_tasks(config)
    with exclusive(run, EVALUATION), Interrupt() as interrupt, console.make() as show:
        listed = parts(run, config, manner.family)
        own = [subject._replace(run=part.run, config=part.config) for part in listed]
        show.say(f"results in {run.path / 'families' if config.mixture else run.evaluation}")
        if not place.cluster:
            check_task(config, interrupt.check)
        subject.apply()
        with make_pool(subject, place) as host:
            if not place.cluster:
                check_own(config)
            for part, one in zip(listed, own):
                told = counter(f"{manner.activity}{part.title}", interrupt, show)
                compute(one, part.pool(host.pool()), told)
        cost = outer_training_cost(run.path, run.config())  # not with the --workers of this command
        concluded = [_concluded(one, manner, cost, show) for one in own]
        if not config.mixture:
            return concluded[0].facts
        each = {part.name: found for part, found in zip(listed, concluded)}
        if len(each) > 1 and subject.theta is not None and not subject.contenders:  # the table is of one theta
            show.say(texts(each, run.name))
        page = write_report(run.path)
        show.say(f"report: {page}")
        return {
            "run": run.name,
            "version": subject.version,
            "seconds_total": time.time() - STARTED,
            "families": {name: found.facts for name, found in each.items()},
            "report": str(page),
        }


def _concluded(subject: Subject, manner: Manner, cost: float | None, show: console.Display) -> OfFamily:
    """Writes the report of one family of tasks, and prints its table.

    Args:
      cost: of outer-training, core seconds.
    """
    run, config = subject.run, subject.config
    digest = None if subject.theta is None else digest_of(subject.theta)
    names = {one.name: digest_of(one.theta) for one in subject.contenders}
    evaluation = read_evaluation(run.evaluation, config, digest, names, pool=manner.pool)
    each = {name: numbers_of(comparison, config) for name, comparison in evaluation.others}
    pooled = None if evaluation.pooled is None else evaluation.pooled.to_json()
    facts = {
        "run": run.name,
        "version": subject.version,
        "seconds_to_first_update": None,
        "seconds_total": time.time() - STARTED,
        **summary_of(evaluation.comparison, config, subject.theta),
        **({"optimizers": each} if each else {}),
        **({"pooled": pooled} if manner.pool else {}),
        "report": str(run.page),
    }
    if subject.theta is not None and (subject.version is None or subject.contenders):
        run.write_summary(facts)  # of all theta files evaluated in this directory, `report` shows these
    page = write_report(run.path, evaluation)
    show.say(several_table(evaluation) if evaluation.others else final_table(evaluation.comparison, run.name, cost))
    show.say(f"report: {page}")
    return OfFamily(facts, evaluation.comparison)
