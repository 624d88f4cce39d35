"""`outertrain watch`: the dashboard of a run in the terminal."""

import click

from cluster.cli import options
from cluster.monitoring.dashboard import watch
from cluster.runs import directory


@click.command()
@options.run
@click.option("--once", is_flag=True, help="Print one frame and exit.")
def command(run: str, once: bool) -> None:
    """Show a run's charts, workers and alerts, live.

    RUN is the name of a run or its directory.
    """
    watch(directory.find(run), once=once)
