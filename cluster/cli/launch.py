"""`outertrain launch`: starts a run on a Ray cluster."""

import shlex
import sys

import click

from cluster.cli import options
from cluster.cli.dry_step import check_task
from cluster.launchers import ray_cluster
from cluster.runs import directory
from cluster.runs.directory import exclusive
from cluster.runs.open import Request, open_run
from cluster.tracking.tracker import missing
from common.errors import printable

UNUSED = (
    "evaluation.every has no effect on a launched run, only on `train`: set outer.keep_every to keep versions, write them with "
    "`outertrain export --version`, and compare them with `outertrain evaluate`"
)


@click.command()
@click.argument("config", required=False)
@click.option("--name", required=True, metavar="RUN", help="Name of the run.")
@options.overrides("workers", "updates")
@options.resume
@options.start
@click.option(
    "--pack",
    is_flag=True,
    help="Fill node by node, so that an autoscaler can remove idle nodes (default: spread over all nodes).",
)
def command(
    config: str | None, name: str, overrides: tuple[str, ...], resume: bool, start: str | None, pack: bool
) -> None:
    """Start a run on the Ray cluster of this machine, and return.

    CONFIG is a TOML file or a preset (default: quickstart). With CONFIG and --resume, a run that does not exist yet is
    started, so that a service can repeat its command.
    """
    ray_cluster.check_place()
    resume = resume and (config is None or name in directory.names())
    opened = open_run(Request(config, name, overrides, resume, start))
    run, settings = opened.run, opened.config
    unused = UNUSED if settings.evaluation.every else ""
    for note in filter(None, (opened.note, unused)):
        print(note, file=sys.stderr)
    asked_now = any(override.partition("=")[0].strip() == "workers.count" for override in overrides)
    scaled = run.worker_target() if resume and not asked_now else None
    workers = settings.workers.count if scaled is None else scaled
    try:
        for found in (check_task(settings), missing(settings)):
            if found:
                print(printable(found), file=sys.stderr)
        with exclusive(run), ray_cluster.connected(run.name, settings):
            ray_cluster.check_free(run.name)  # before its learner could read another configuration
            opened.apply()
            ray_cluster.launch(run, workers, spread=not pack)
    except BaseException:  # an interrupt too: the name would stay taken
        opened.undo()
        raise
    see = f"outertrain watch | scale | stop {shlex.quote(run.name)}"
    print(printable(f"{run.name} runs with {workers} workers; see: {see}"), file=sys.stderr)
