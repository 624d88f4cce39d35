"""`outertrain evaluate`: compares a learned optimizer with tuned baselines on unseen tasks."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from cluster.cli import STARTED, console, options
from cluster.cli.console import counter
from cluster.cli.dry_step import check_task
from cluster.cli.interrupt import Interrupt
from cluster.cli.options import Place
from cluster.cli.subject import Request, Subject, find_all, make_pool
from cluster.jobs.evaluation import evaluate, numbers_of, summary_of
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


@click.command(cls=options.ListCommand)
@click.argument("targets", metavar="RUN|THETA|NAME...", nargs=-1, required=True)
@click.option("--config", metavar="CONFIG", help="The tasks for a theta file: a TOML file or a preset.")
@options.overrides("tasks", "baselines", "workers")
@options.place
@click.option("--pool", is_flag=True, help="Also score the learned optimizers as one, trained with several seeds.")
@options.as_json
def command(
    *,
    targets: tuple[str, ...],
    config: str | None,
    overrides: tuple[str, ...],
    place: Place,
    pool: bool,
    as_json: bool,
) -> int:
    """Compare learned optimizers with tuned baselines on unseen tasks.

    RUN|THETA|NAME is a run, a theta file, the name of an included optimizer, or a hand-made one: a baseline, or a
    module:function of your own. Several learned ones are compared on the same tasks.
    """
    request = Request(targets[0], overrides, place, config)

    def compute(subject: Subject, pool: Pool, progress: Progress) -> None:
        evaluate(subject.run, subject.config, learned_of(subject), pool, progress)

    subject = find_all(targets, request)
    if pool and not subject.contenders:
        raise UserError("--pool averages over several learned optimizers: name the runs of two seeds or more")
    facts = assess(subject, place, compute, "evaluating", pool=pool)
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


def assess(subject: Subject, place: Place, compute: Compute, activity: str, *, pool: bool = False) -> dict[str, Any]:
    """Computes what is missing of an evaluation, writes the report, prints the table and returns what --json prints.

    Args:
      pool: several learned optimizers are scored as a single one as well.

    Raises Interrupted when the user stops it.
    """
    run, config = subject.run, subject.config
    if config.evaluation.tasks < 1:
        raise UserError("evaluation.tasks = 0 leaves nothing to do: give --tasks of at least 1")
    with exclusive(run, EVALUATION), Interrupt() as interrupt, console.make() as show:
        show.say(f"results in {run.evaluation}")
        if not place.cluster:
            check_task(config)
        with make_pool(subject, place) as host:
            if not place.cluster:
                check_own(config)
            compute(subject, host.pool(), counter(activity, interrupt, show))
        digest = None if subject.theta is None else digest_of(subject.theta)
        names = {one.name: digest_of(one.theta) for one in subject.contenders}
        evaluation = read_evaluation(run.evaluation, config, digest, names, pool=pool)
        each = {name: numbers_of(comparison, config) for name, comparison in evaluation.others}
        facts = {
            "run": run.name,
            "version": subject.version,
            "seconds_to_first_update": None,
            "seconds_total": time.time() - STARTED,
            **summary_of(evaluation.comparison, config, subject.theta),
            **({"optimizers": each} if each else {}),
            **({"pooled": None if evaluation.pooled is None else evaluation.pooled.to_json()} if pool else {}),
            "report": str(run.page),
        }
        if subject.theta is not None and (subject.version is None or subject.contenders):
            run.write_summary(facts)  # of all theta files evaluated in this directory, `report` shows these
        page = write_report(run.path, evaluation)
        cost = outer_training_cost(run.path, run.config())  # not with the --workers of this command
        show.say(several_table(evaluation) if evaluation.others else final_table(evaluation.comparison, run.name, cost))
        show.say(f"report: {page}")
    return facts
