"""`outertrain status`: shows the state of a run."""

import json

import click

from cluster.cli import options
from cluster.monitoring.status import status_of, text
from cluster.runs import directory
from common.errors import printable


@click.command()
@options.run
@options.as_json
def command(run: str, as_json: bool) -> None:
    """Show the state of a run: progress, workers, samples, checkpoint.

    RUN is the name of a run or its directory.
    """
    status = status_of(directory.find(run))
    print(json.dumps(status.to_json()) if as_json else printable(text(status)))
