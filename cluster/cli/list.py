"""`outertrain list`: lists the runs."""

import json

import click

from cluster.cli import options
from cluster.monitoring.status import state_of
from cluster.runs import directory


@click.command()
@options.as_json
def command(as_json: bool) -> None:
    """List the runs in $OUTERTRAIN_RUNS (default: the directory `runs`), with their state."""
    states = [state_of(directory.find(name)) for name in directory.names()]
    if as_json:
        print(json.dumps(states))
        return
    for state in states:
        print("{run:30}  {state:9}  update {version}/{target}  workers {workers}".format_map(state))
