"""`outertrain baselines`: tunes hand-designed optimizers on the tasks of an evaluation."""

import json

import click

from cluster.cli import options
from cluster.cli.evaluate import Manner, assess
from cluster.cli.options import Place
from cluster.cli.subject import Request, Subject, find_tasks
from cluster.jobs.evaluation import tune
from cluster.jobs.job import Pool, Progress


@click.command(cls=options.ListCommand)
@click.argument("target", metavar="RUN|CONFIG")
@options.overrides("tasks", "baselines", "workers")
@options.place
@options.as_json
def command(target: str, overrides: tuple[str, ...], place: Place, as_json: bool) -> int:
    """Tune hand-designed optimizers on the tasks of an evaluation.

    RUN|CONFIG is a run, a TOML file or a preset.
    """

    def compute(subject: Subject, pool: Pool, progress: Progress) -> None:
        tune(subject.run, subject.config, pool, progress)

    facts = assess(find_tasks(Request(target, overrides, place)), place, compute, Manner("tuning"))
    if as_json:
        print(json.dumps(facts), flush=True)
    return 0
