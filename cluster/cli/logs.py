"""`outertrain logs`: prints the end of a run's log."""

import click

from cluster.cli import options
from cluster.runs import directory
from common.errors import UserError, printable


@click.command()
@options.run
@click.option("--lines", type=int, default=50, metavar="N", show_default=True, help="Lines from the end of the log.")
def command(run: str, lines: int) -> None:
    """Print what a run has logged: rejected samples, failures of workers, restarts.

    RUN is the name of a run or its directory.
    """
    if lines < 1:
        raise UserError(f"--lines {lines} shows nothing: give at least 1")
    print(printable(directory.find(run).log(lines)), end="")
