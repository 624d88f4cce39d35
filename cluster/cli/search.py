"""`outertrain search`: random search over all hyper-parameters of Adam, RMSProp or momentum."""

import json
from typing import Any, get_args

import click

from cluster.cli import console, options
from cluster.cli.console import counter
from cluster.cli.interrupt import Interrupt
from cluster.cli.options import Place
from cluster.cli.subject import Request, Subject, find_tasks, make_pool
from cluster.jobs.search import Best, Size, searched
from cluster.runs.directory import EVALUATION, SEARCH, exclusive
from common.errors import UserError
from workers.evaluation.search import Searched


@click.command()
@click.argument("target", metavar="RUN|CONFIG")
@click.option(
    "--optimizer",
    type=click.Choice(get_args(Searched)),
    default="adam8",
    show_default=True,
    help="Adam's eight, RMSProp's seven or momentum's six hyper-parameters.",
)
@click.option(
    "--draws", type=int, default=200, metavar="N", show_default=True, help="Hyper-parameter sets (paper: 2000)."
)
@click.option("--runs", type=int, default=16, metavar="N", show_default=True, help="Inner runs per set (paper: 80).")
@click.option("--keep-all", is_flag=True, help="Run every set to the end; by default poor ones are rejected early.")
@options.overrides("workers")
@options.place
@options.as_json
def command(target: str, overrides: tuple[str, ...], place: Place, as_json: bool, **size: Any) -> int:
    """Search the hyper-parameters of Adam, RMSProp or momentum at random (section 4.4 and appendix E of the paper).

    Besides those of the rule itself, they are decays of the learning rate and penalties on the weights.

    RUN|CONFIG is a run, a TOML file or a preset, whose tasks are used.
    """
    for name in ("draws", "runs"):
        if size[name] < 1:
            raise UserError(f"--{name} {size[name]} leaves nothing to search: give at least 1")
    found = search(find_tasks(Request(target, overrides, place), evaluated=False), place, Size(**size))
    if as_json:
        print(json.dumps({loss: best._asdict() | {"path": str(best.path)} for loss, best in found.items()}), flush=True)
    return 0


def search(subject: Subject, place: Place, size: Size) -> dict[str, Best]:
    """The best hyper-parameters by each loss. Raises Interrupted when the user stops it."""
    run, config = subject.run, subject.config
    if config.mixture:
        raise UserError(
            "a search is on the tasks of one family, and this configuration has a mixture: name the configuration of a family, "
            f"such as {run.of_family(config.members[0].name).config_file} after an evaluation"
        )
    with exclusive(run, SEARCH), Interrupt() as interrupt, console.make() as show:
        if subject.outdated():
            with exclusive(run, EVALUATION):
                subject.apply()
        show.say(f"search: at most {size.plan().inner_runs:,} inner runs of {config.task.longest:,} steps")
        with make_pool(subject, place) as pool:
            found = searched(run, config, size, pool.pool(), counter("searching", interrupt, show))
        for loss, best in found.items():
            show.say(f"best by {loss} loss, {best.loss:.4f} over {best.runs} runs: {best.path}\n  {best.shown}")
    return found
