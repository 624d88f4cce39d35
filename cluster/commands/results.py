"""`outertrain report`, `export` and `reproduce`: what a run leaves to look at and to take away."""

import argparse
import sys
from pathlib import Path

from cluster.commands import options


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("report", help="write the page of a run: curves, estimators, comparison")
    options.run_name(parser)
    parser.set_defaults(handler=report)

    parser = commands.add_parser("export", help="take the learned optimizer away: a Python module, or theta")
    options.run_name(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file.py: needs jax and optax only; else: theta",
    )
    parser.add_argument("--version", type=int, metavar="V", help="outer update (default: the newest)")
    parser.set_defaults(handler=export)

    parser = commands.add_parser("reproduce", help="recompute a figure of the paper")
    parser.add_argument("figure", metavar="FIGURE", help="its number, such as 4")
    options.workers(parser)
    options.overrides(parser)
    options.as_json(parser)
    parser.set_defaults(handler=reproduce)


def report(arguments: argparse.Namespace) -> None:
    from cluster import rundirectory
    from cluster.report import write_report

    print(write_report(rundirectory.find(arguments.run).path))


def export(arguments: argparse.Namespace) -> None:
    from cluster import rundirectory
    from cluster.evaluate import theta_of
    from cluster.export import write

    run = rundirectory.find(arguments.run)
    theta, version = theta_of(run, arguments.version)
    write(run.config(), theta, f"from run {run.name}, outer update {version}", arguments.output)
    print(f"{arguments.output}: {len(theta)} parameters of outer update {version}", file=sys.stderr)


def reproduce(arguments: argparse.Namespace) -> int:
    from workers.figures import reproduce as run_figure

    return run_figure(arguments.figure, arguments.workers, arguments.overrides, arguments.json)
