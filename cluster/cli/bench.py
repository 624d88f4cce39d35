"""`outertrain bench`: measures figures in processes of their own, and reports which targets hold.

`workers.bench.catalogue` lists the figures of the unroll engine; those that need a learner or Ray are listed here.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from cluster.cli import console, options
from cluster.report.table import aligned
from common import cores
from common.errors import UserError
from workers.bench import comparison
from workers.bench.catalogue import FIGURES as ENGINE
from workers.bench.figure import Figure, Outcome

SYSTEM = (
    Figure(
        "first-update",
        "from `outertrain train` to the first outer update, warm cache, 2 workers",
        "s",
        "cluster.actors.bench_learner:first_update",
        2,
        12,
        at_most=True,
        pinned=False,
    ),
    Figure(
        "learner-batch",
        "learner: 128 samples of 1,090 parameters unpacked, admitted, merged, applied, written; fsync apart",
        "ms",
        "cluster.actors.bench_learner:batch",
        15,
        50,
        at_most=True,
        quick=True,
    ),
    Figure(
        "learner-ray",
        "exchanges per second with the learner over Ray over those with an actor that echoes the same bytes",
        "",
        "cluster.actors.bench_learner:over_ray",
        5,
        0.7,
        pinned=False,
    ),
)
FIGURES = (*ENGINE, *SYSTEM)
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # flag of the processor -> what speeds are recorded by


@click.command()
@click.argument("figures", nargs=-1, metavar="[NAME...]")
@click.option("--list", "only_list", is_flag=True, help="List the figures without measuring them.")
@click.option("--quick", is_flag=True, help="Measure only a few, in about a minute.")
@click.option(
    "--compare", "file", metavar="FILE", type=click.Path(path_type=Path), help="Compare with the --json of before."
)
@options.as_json
def command(figures: tuple[str, ...], only_list: bool, quick: bool, file: Path | None, as_json: bool) -> None:
    """Measure the unroll engine and the learner on this machine.

    NAME is the name of a figure (default: all).
    """
    chosen = choose(figures, quick=quick)
    if only_list:
        print("\n".join(aligned([(figure.name, figure.what) for figure in chosen])))
        return
    before, here = None if file is None else comparison.read(file), machine()
    outcomes: list[Outcome] = []
    with console.make() as show:
        show.say(f"{comparison.described(here)}, load {here['load'][0]:.1f}")
        show.counting("measuring", 0, len(chosen))
        for outcome in measured(chosen):
            outcomes.append(outcome)
            show.say(line(outcome))
            show.counting("measuring", len(outcomes), len(chosen))
        changes = [] if before is None else comparison.compare(before.outcomes, outcomes)
        if before is not None:
            show.say("\n".join(compared(file, before, changes)))
    if as_json:
        answer = {"machine": here, "figures": [one._asdict() for one in outcomes]}
        print(
            json.dumps(answer | ({} if before is None else {"changes": [one._asdict() for one in changes]})), flush=True
        )


def choose(names: Sequence[str], *, quick: bool = False) -> list[Figure]:
    """The figures of these names, the quick ones, or all. Raises UserError for an unknown name."""
    known = {figure.name: figure for figure in FIGURES}
    if names and quick:
        raise UserError("bench takes names of figures or --quick: leave one of the two out")
    for name in names:
        if name not in known:
            raise UserError(f"bench has no figure {name!r}: choose from {', '.join(known)}")
    return [known[name] for name in names] if names else [one for one in FIGURES if one.quick or not quick]


def measured(figures: Sequence[Figure]) -> Iterator[Outcome]:
    """The outcomes of figures in their order; a failure is an outcome too.

    Neighbours that are pinned share a process, and what is traced and compiled there; each other figure has its own.
    """
    for pinned, group in groupby(figures, lambda figure: figure.pinned):
        members = list(group)
        for together in [members] if pinned else [[one] for one in members]:
            yield from in_processes(together)


def in_processes(figures: Sequence[Figure]) -> Iterator[Outcome]:
    """The outcomes of figures in one process, and in a new one for those after a figure at which it died."""
    remaining = list(figures)
    while remaining:
        command = [sys.executable, "-m", "workers.bench", json.dumps(remaining)]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            assert process.stdout is not None
            for text in process.stdout:
                yield Outcome(**json.loads(text))
                remaining.pop(0)
            status = process.wait()
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if remaining:
            yield Outcome.failed(remaining.pop(0), said[-1] if said else f"it exited with status {status}")


def line(outcome: Outcome) -> str:
    """An outcome as text: value, spread, target, what it is."""
    if outcome.value is None or outcome.spread is None:
        return f"{outcome.figure}: not measured ({outcome.details.get('failure', 'unknown')})"
    low, high = outcome.spread
    value = f"{outcome.value:.4g} {outcome.unit}".strip()
    target = "no target"
    if outcome.target is not None:
        target = f"{outcome.sense} {outcome.target:g}: {'holds' if outcome.holds else 'MISSED'}"
    return f"{outcome.figure}: {value}  [{low:.4g} .. {high:.4g}]  {target}  ({outcome.what})"


def compared(file: Path | None, before: comparison.Answer, changes: Sequence[comparison.Change]) -> list[str]:
    """The figures now and before as a table."""
    rows = [("figure", "before", "now", "now / before", "")]
    for one in changes:
        ratio = "" if one.ratio is None else f"{one.ratio:.3f}"
        rows.append((one.figure, f"{one.before:.4g}", f"{one.now:.4g}", ratio, one.verdict))
    title = f"compared with {file}" + (f" ({before.machine})" if before.machine else "")
    return [title, *aligned(rows)] if changes else [f"{title}: no figure in common"]


def machine() -> dict[str, Any]:
    """The machine that the figures come from."""
    return {
        "processor": processor("model name") or platform.machine(),
        "instructions": instructions(),
        "cores": cores.count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }


def instructions() -> str:
    """The widest vectors of the processor, which speeds depend on most: AVX-512, AVX2, or neither."""
    flags = processor("flags").split()
    return next((name for flag, name in VECTORS.items() if flag in flags), "neither AVX2 nor AVX-512")


def processor(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; "" where it has none."""
    with open("/proc/cpuinfo") as file:
        return next((text.partition(":")[2].strip() for text in file if text.startswith(field)), "")
