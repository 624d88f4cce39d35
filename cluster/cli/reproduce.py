"""`outertrain reproduce`: recomputes figures of the paper."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from cluster.cli import console
from cluster.cli.interrupt import Interrupt
from cluster.jobs.figures import Setting, conclude_so_far, reproduce
from cluster.jobs.job import Pool
from common import cores
from common.data.class_store import read_header
from common.errors import UserError
from workers.figures import catalogue


class Computers(NamedTuple):
    """Who computes the jobs of a figure."""

    workers: int | None
    cluster: bool


@click.command()
@click.argument("figures", nargs=-1, required=True, metavar="FIGURE...")
@click.option(
    "--scale",
    default="mini",
    metavar="SCALE",
    show_default=True,
    help="mini (minutes to hours), wallclock (Figures 5 and 6 on larger images, hours), long (inner problems ten times as long, hours), "
    "headline (Figure 6 on the paper's own network, hours), or paper.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("figures"),
    metavar="DIR",
    show_default=True,
    help="Directory for pictures, rows and outcomes.",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes (default: all cores); with --cluster: workers of each training (default: as its preset says).",
)
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Class store of the paper scale, on every node."
)
@click.option("--cluster", is_flag=True, help="Use this machine's Ray cluster: each training is a launched run.")
@click.option("--so-far", is_flag=True, help="Compute nothing: pictures and outcomes of the results that there are.")
def command(*, figures: tuple[str, ...], workers: int | None, cluster: bool, so_far: bool, **where: Any) -> None:
    """Recompute figures of the paper; the same command resumes after an interruption.

    FIGURE is one of fig2 ... fig8, searches, probing, staleness, estimators, allocation, mixtures, or all.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: nothing is computed without one; use at least 1")
    setting = setting_of(**where)
    names = catalogue.chosen(figures, setting.scale)
    if setting.scale == "paper":
        check_data(setting.data)
    setting.folder.mkdir(parents=True, exist_ok=True)
    if so_far:
        for name, (done, known) in conclude_so_far(names, setting).items():
            print(f"{name}: {done} of {known} jobs, picture and outcome in {setting.folder}")
        return
    with (
        Interrupt() as interrupt,
        console.make() as show,
        figure_pool(Computers(workers, cluster), setting.folder, show.say) as pool,
    ):

        def progress(name: str, done: int, total: int) -> None:
            show.counting(name, done, total)
            interrupt.check()

        reproduce(names, setting, pool, progress)
        show.say(f"pictures and outcomes in {setting.folder}")


def setting_of(scale: str, output: Path, data: Path | None) -> Setting:
    return Setting(scale, output, None if data is None else str(data.expanduser().absolute()))


def check_data(store: str | None) -> None:
    """Raises UserError when there is no class store: now, rather than after hours of jobs that need none."""
    if store is None:
        raise UserError(
            "the paper scale needs ImageNet: make a class store with `outertrain data prepare`, and give --data"
        )
    read_header(Path(store))


@contextmanager
def figure_pool(computers: Computers, output: Path, say: Callable[[str], None]) -> Iterator[Pool]:
    if not computers.cluster:
        from cluster.launchers.process_pool import LocalPool

        with LocalPool(computers.workers or cores.count(), output) as local:
            yield local
        return
    from cluster.launchers import ray_cluster

    with ray_cluster.connected():
        from cluster.launchers.launched_pool import ClusterPool  # imports Ray, which `connected` configures first

        with ClusterPool(computers.workers, say) as pool:
            yield pool
