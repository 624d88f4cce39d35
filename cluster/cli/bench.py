"""`outertrain bench`: measures figures, each in a process of its own, and reports which targets hold.

`workers.bench.catalogue` lists the figures of the unroll engine; those that need a learner or Ray are listed here.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click

from cluster.cli import console, options
from cluster.report.table import aligned
from common import cores
from common.errors import UserError
from workers.bench.catalogue import FIGURES as ENGINE
from workers.bench.figure import Figure, Outcome

SYSTEM = (
    Figure(
        "first-update",
        "from `outertrain train` to the first outer update, warm cache, 2 workers",
        "s",
        "cluster.actors.bench_learner:first_update",
        3,
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
    ),
    Figure(
        "learner-ray",
        "exchanges per second with the learner over Ray over those with an actor that echoes the same bytes",
        "",
        "cluster.actors.bench_learner:over_ray",
        9,
        0.7,
        pinned=False,
    ),
)
FIGURES = (*ENGINE, *SYSTEM)


@click.command()
@click.argument("figures", nargs=-1, metavar="[NAME...]")
@click.option("--list", "only_list", is_flag=True, help="List the figures without measuring them.")
@options.as_json
def command(figures: tuple[str, ...], only_list: bool, as_json: bool) -> None:
    """Measure the unroll engine and the learner on this machine.

    NAME is the name of a figure (default: all).
    """
    chosen = choose(figures)
    if only_list:
        print("\n".join(aligned([(figure.name, figure.what) for figure in chosen])))
        return
    outcomes: list[Outcome] = []
    with console.make() as show:
        for figure in chosen:
            show.counting("measuring", len(outcomes), len(chosen))
            outcomes.append(apart(figure))
            show.say(line(outcomes[-1]))
        show.counting("measuring", len(outcomes), len(chosen))
    if as_json:
        print(json.dumps({"machine": machine(), "figures": [one._asdict() for one in outcomes]}), flush=True)


def choose(names: Sequence[str]) -> list[Figure]:
    """The figures of these names, or all. Raises UserError for an unknown name."""
    known = {figure.name: figure for figure in FIGURES}
    for name in names:
        if name not in known:
            raise UserError(f"bench has no figure {name!r}: choose from {', '.join(known)}")
    return [known[name] for name in names] if names else list(FIGURES)


def apart(figure: Figure) -> Outcome:
    """The outcome of a figure measured in a process of its own; a failure is an outcome too."""
    command = [sys.executable, "-m", "workers.bench", json.dumps(figure)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return Outcome(**json.loads(lines[-1]))
    last = (done.stderr.strip().splitlines() or [f"it exited with status {done.returncode}"])[-1]
    return Outcome(figure.name, figure.what, value=None, details={"failure": last})


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


def machine() -> dict[str, Any]:
    """The machine that the figures come from."""
    return {
        "processor": processor(),
        "cores": cores.count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }


def processor() -> str:
    with open("/proc/cpuinfo") as file:
        models = [text.partition(":")[2].strip() for text in file if text.startswith("model name")]
    return models[0] if models else platform.machine()
