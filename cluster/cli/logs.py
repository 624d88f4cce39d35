"""`outertrain logs`: prints the end of a run's log."""

from pathlib import Path

import click

from cluster.cli import options
from cluster.runs import directory
from common.errors import UserError, printable


@click.command()
@options.run
@click.option("--lines", type=int, default=50, metavar="N", show_default=True, help="Lines from the end of the log.")
@click.option("--cluster", is_flag=True, help="Ask the run's actors on the Ray cluster, if its directory is elsewhere.")
def command(run: str, lines: int, cluster: bool) -> None:
    """Print what a run has logged: rejected samples, failures of workers, restarts.

    RUN is the name of a run or its directory; with --cluster, the name of a launched run.
    """
    if lines < 1:
        raise UserError(f"--lines {lines} shows nothing: give at least 1")
    if not cluster:
        print(printable(directory.find(run).log(lines)), end="")
        return
    from cluster.launchers import ray_cluster, remote_runs

    with ray_cluster.connected():
        print(printable(remote_runs.log(Path(run).name, lines)), end="")
