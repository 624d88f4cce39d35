"""`outertrain list`: lists the runs."""

import json

import click

from cluster.cli import options
from cluster.monitoring.status import status_of
from cluster.runs import directory
from common.errors import printable


@click.command()
@options.as_json
def command(as_json: bool) -> None:
    """List the runs in $OUTERTRAIN_RUNS (default: the directory `runs`), with their state."""
    found = [status_of(directory.find(name)) for name in directory.names()]
    if as_json:
        print(json.dumps([status.to_json() for status in found]))
        return
    for status in found:
        at = status.progress
        line = f"{status.run:30}  {status.state:9}  update {at.version}/{at.target}  workers {at.workers}"
        print(printable(line))
