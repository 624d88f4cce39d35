"""`outertrain export`: saves a learned optimizer as a Python module or a theta file."""

import sys
from pathlib import Path

import click

from cluster.report.export import write
from cluster.runs.best import BEST
from cluster.runs.learned import find
from common.errors import printable


@click.command()
@click.argument("target", metavar="RUN|THETA")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="FILE.py: a module that needs only jax and optax, or only torch; any other suffix: a theta file.",
)
@click.option(
    "--framework",
    type=click.Choice(["optax", "torch"]),
    default="optax",
    show_default=True,
    help="What the module is for.",
)
@click.option(
    "--version",
    metavar="V",
    callback=lambda context, parameter, value: version_in(value),
    help="Outer update to export (default: the newest); best: the best of those evaluated (evaluation.every).",
)
def command(target: str, output: Path, framework: str, version: int | str | None) -> None:
    """Save a learned optimizer as a Python module or a theta file.

    RUN|THETA is a run, a theta file, or the name of an included optimizer.
    """
    learned = find(target, version)
    write(learned, output, framework)
    print(printable(f"{output}: {len(learned.theta)} parameters {learned.origin}"), file=sys.stderr)


def version_in(text: str | None) -> int | str | None:
    """The version that a text names: a number, or `BEST`."""
    if text is None or text == BEST:
        return text
    if not (text.isascii() and text.isdigit()):
        raise click.BadParameter(f"{text!r} is neither the number of an outer update nor {BEST!r}")
    return int(text)
