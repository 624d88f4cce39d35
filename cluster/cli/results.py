"""`outertrain report`, `export` and `reproduce`: what a run leaves to look at and to take away."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.cli import options
from common.errors import UserError

if TYPE_CHECKING:
    from cluster.jobs.job import Pool


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("report", help="write the page of a run: curves, estimators, comparison")
    options.run_name(parser)
    parser.set_defaults(handler=report)

    parser = commands.add_parser("export", help="take the learned optimizer away: a Python module, or theta")
    parser.add_argument("target", metavar="RUN|THETA", help="a run, a theta file, or the name of a shipped one")
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

    parser = commands.add_parser("reproduce", help="recompute figures of the paper; goes on where it was cut off")
    parser.add_argument("figures", nargs="+", metavar="FIGURE", help="fig2 ... fig8, probing, or all")
    parser.add_argument("--scale", default="mini", metavar="SCALE", help="mini (minutes to hours, default) or paper")
    parser.add_argument("-o", "--output", type=Path, default=Path("figures"), metavar="DIR", help="default: figures")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: all cores); with --cluster: workers of each training (default: as its preset says)",
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the class store of the paper scale, on every node")
    parser.add_argument(
        "--cluster", action="store_true", help="on this machine's Ray cluster: each training is a launched run"
    )
    parser.set_defaults(handler=reproduce)


def report(arguments: argparse.Namespace) -> None:
    from cluster.report.page import write_report
    from cluster.runs import directory

    print(write_report(directory.find(arguments.run).path))


def export(arguments: argparse.Namespace) -> None:
    from cluster.report.export import find, write

    learned = find(arguments.target, arguments.version)
    write(learned, arguments.output)
    print(f"{arguments.output}: {len(learned.theta)} parameters {learned.origin}", file=sys.stderr)


def reproduce(arguments: argparse.Namespace) -> int:
    from cluster.cli import console
    from cluster.cli.interrupt import Interrupt
    from cluster.jobs.figures import reproduce
    from workers.figures import catalogue

    names = catalogue.NAMES if arguments.figures == ["all"] else arguments.figures
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: nothing is computed without one; use at least 1")
    data = None if arguments.data is None else str(arguments.data.expanduser().absolute())
    if arguments.scale == "paper":
        check_data(data)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with Interrupt() as interrupt, console.make() as show, figure_pool(arguments, show.say) as pool:

        def report_progress(name: str, done: int, total: int) -> None:
            show.counting(name, done, total)
            interrupt.check()

        reproduce(names, arguments.scale, arguments.output, pool, report_progress, data)
        show.say(f"pictures and verdicts in {arguments.output}")
    return 0


def check_data(data: str | None) -> None:
    """Raises UserError when there is no class store there: better now than after hours of items that need none."""
    from common.data.class_store import read_header

    if data is None:
        raise UserError(
            "the paper scale needs ImageNet: make a class store with `outertrain data prepare`, and give --data"
        )
    read_header(Path(data))


@contextmanager
def figure_pool(arguments: argparse.Namespace, say: Callable[[str], None]) -> Iterator["Pool"]:
    """Those who compute a figure's items."""
    if not arguments.cluster:
        from cluster.launchers.process_pool import LocalPool

        with LocalPool(arguments.workers or os.cpu_count() or 1, arguments.output) as pool:
            yield pool
        return
    from cluster.launchers import ray_cluster

    with ray_cluster.connected():
        from cluster.launchers.launched_pool import ClusterPool

        with ClusterPool(arguments.workers, say) as pool:
            yield pool
