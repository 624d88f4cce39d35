"""`outertrain stop`: stops a launched run with a checkpoint."""

import sys
from pathlib import Path

import click

from cluster.cli import console, options
from cluster.launchers import ray_cluster


@click.command()
@options.run
@click.option("--now", is_flag=True, help="Do not wait for the samples in flight.")
def command(run: str, now: bool) -> None:
    """Stop a launched run with a checkpoint; `launch --resume` resumes it."""
    with ray_cluster.connected(), console.make() as show:
        ray_cluster.stop(Path(run).name, show.say, now=now)
    print(f"{run} is stopped with a checkpoint; resume with: outertrain launch --name {run} --resume", file=sys.stderr)
