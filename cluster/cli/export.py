"""`outertrain export`: saves a learned optimizer as a Python module or a theta file."""

import sys
from pathlib import Path

import click

from cluster.report.export import find, write
from common.errors import printable


@click.command()
@click.argument("target", metavar="RUN|THETA")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="FILE.py: a module that needs only jax and optax; any other suffix: a theta file.",
)
@click.option("--version", type=int, metavar="V", help="Outer update to export (default: the newest).")
def command(target: str, output: Path, version: int | None) -> None:
    """Save a learned optimizer as a Python module or a theta file.

    RUN|THETA is a run, a theta file, or the name of an included optimizer.
    """
    learned = find(target, version)
    write(learned, output)
    print(printable(f"{output}: {len(learned.theta)} parameters {learned.origin}"), file=sys.stderr)
