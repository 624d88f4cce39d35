"""`outertrain status`: shows the state of a run."""

import json

import click

from cluster.cli import options
from cluster.monitoring.status import state_of, text
from cluster.runs import directory


@click.command()
@options.run
@options.as_json
def command(run: str, as_json: bool) -> None:
    """Show the state of a run: progress, workers, samples, checkpoint.

    RUN is the name of a run or its directory.
    """
    state = state_of(directory.find(run))
    print(json.dumps(state) if as_json else text(state))
