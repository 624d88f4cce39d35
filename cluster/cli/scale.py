"""`outertrain scale`: changes the number of workers of a launched run."""

import sys
from pathlib import Path

import click

from cluster.cli import options
from cluster.launchers import ray_cluster
from cluster.runs.directory import shell_command
from common.errors import printable


@click.command()
@options.run
@click.argument("workers", metavar="N", type=int)
def command(run: str, workers: int) -> None:
    """Change the number of workers of a launched run to N."""
    with ray_cluster.connected():
        ray_cluster.scale(Path(run).name, workers)
    print(printable(f"{run}: {workers} workers requested; see: {shell_command('status', run)}"), file=sys.stderr)
