"""`outertrain evaluate`: compares a learned optimizer with tuned baselines on unseen tasks."""

import json
import time
from collections.abc import Callable
from typing import Any

import click

from cluster.cli import STARTED, console, options
from cluster.cli.console import counter
from cluster.cli.interrupt import Interrupt
from cluster.cli.options import Place
from cluster.cli.subject import Request, Subject, find_learned, make_pool
from cluster.jobs.evaluation import evaluate, summary_of
from cluster.jobs.job import Pool, Progress
from cluster.report.page import write_report
from cluster.report.table import final_table
from cluster.runs.cost import outer_training_cost
from cluster.runs.directory import EVALUATION, exclusive
from common.errors import UserError
from workers.evaluation.comparison import read_evaluation
from workers.evaluation.jobs import Learned, digest_of

Compute = Callable[[Subject, Pool, Progress], None]


@click.command(cls=options.ListCommand)
@click.argument("target", metavar="RUN|THETA")
@click.option("--config", metavar="CONFIG", help="The tasks for a theta file: a TOML file or a preset.")
@options.overrides("tasks", "baselines", "workers")
@options.place
@options.as_json
def command(target: str, config: str | None, overrides: tuple[str, ...], place: Place, as_json: bool) -> int:
    """Compare a learned optimizer with tuned baselines on unseen tasks.

    RUN|THETA is a run, a theta file, or the name of an included optimizer.
    """
    request = Request(target, overrides, place, config)

    def compute(subject: Subject, pool: Pool, progress: Progress) -> None:
        assert subject.theta is not None
        evaluate(subject.run, subject.config, [Learned(subject.theta, subject.version)], pool, progress)

    facts = assess(find_learned(request), place, compute, "evaluating")
    if as_json:
        print(json.dumps(facts), flush=True)
    return 0


def assess(subject: Subject, place: Place, compute: Compute, activity: str) -> dict[str, Any]:
    """Computes what is missing of an evaluation, writes the report, prints the table and returns what --json prints.

    Raises Interrupted when the user stops it.
    """
    run, config = subject.run, subject.config
    if config.evaluation.tasks < 1:
        raise UserError("evaluation.tasks = 0 leaves nothing to do: give --tasks of at least 1")
    with exclusive(run, EVALUATION), Interrupt() as interrupt, console.make() as show:
        show.say(f"results in {run.evaluation}")
        with make_pool(subject, place) as pool:
            compute(subject, pool.pool(), counter(activity, interrupt, show))
        digest = None if subject.theta is None else digest_of(subject.theta)
        evaluation = read_evaluation(run.evaluation, config, digest)
        facts = {
            "run": run.name,
            "version": subject.version,
            "seconds_to_first_update": None,
            "seconds_total": time.time() - STARTED,
            **summary_of(evaluation.comparison, config, subject.theta),
            "report": str(run.page),
        }
        if subject.theta is not None and subject.version is None:
            run.write_summary(facts)  # of several theta files, `report` shows this one
        page = write_report(run.path, evaluation)
        show.say(final_table(evaluation.comparison, run.name, outer_training_cost(run.path, config)))
        show.say(f"report: {page}")
    return facts
