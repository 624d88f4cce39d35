"""`outertrain stop`: stops a launched run with a checkpoint."""

import shlex
import sys
from pathlib import Path

import click

from cluster.cli import console, options
from cluster.launchers import ray_cluster
from common.errors import printable


@click.command()
@options.run
@click.option("--now", is_flag=True, help="Do not wait for the samples in flight.")
def command(run: str, now: bool) -> None:
    """Stop a launched run with a checkpoint; `launch --resume` resumes it."""
    with ray_cluster.connected(), console.make() as show:
        ray_cluster.stop(Path(run).name, show.say, now=now)
    resume = shlex.join(["outertrain", "launch", "--name", Path(run).name, "--resume"])
    print(printable(f"{run} is stopped with a checkpoint; resume with: {resume}"), file=sys.stderr)
