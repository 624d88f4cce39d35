"""`outertrain report`: writes the HTML report of a run."""

import click

from cluster.cli import options
from cluster.report.page import write_report
from cluster.runs import directory


@click.command()
@options.run
def command(run: str) -> None:
    """Write the HTML report of a run: curves, estimators, comparison.

    RUN is the name of a run or its directory. Prints the path of the report.
    """
    print(write_report(directory.find(run).path))
