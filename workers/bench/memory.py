"""Peak memory of a pair of long windows, as the kernel reports it for new processes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from workers.bench.figure import Measured
from workers.bench.problems import PAPER, Case, Noise, Subject, learned, subject
from workers.bench.unrolls import Recomputing, perturbation
from workers.estimators import antithetic_pair

SHORT = 2  # steps: one tape, which is as large as that of a whole segment
LONG = 1250  # steps: more tapes than fit into `workers.unroll.KEPT_BYTES`
TINY = Case(replace(PAPER.task, batch_size=1), Noise((8, 8, 3), 150))


def of_a_pair(rounds: int) -> Measured:
    """Peak resident MB of one pair of long windows minus those of an idle worker; compilation is excluded.

    So many steps of the paper's network take long, so the figure is a sum: the memory of a pair of two steps, and what
    the long window adds on tiny images, for which every state and every tape has the same size. Their tapes are without
    activations, as those of the paper's network are. Boundary states and tapes share one bound, so longer windows take
    no more memory, until the boundary states alone exceed it at 10,600 steps.
    """
    values, details = [], {}
    for _ in range(rounds):
        full, tiny = (in_a_process("grow", size) for size in ("full", "tiny"))
        details = {"full": full, "tiny": tiny}
        values.append(full["short"] - full["idle"] + tiny["long"] - tiny["short"])
    return Measured(values, details)


def in_a_process(function: str, size: str) -> dict[str, float]:
    """The output of a function of this module in a new process; an earlier process fills the compilation cache."""
    code = (
        f"from common import runtime; runtime.prepare(pin=False); from workers.bench import memory; memory.{function}"
    )
    for longest in (1, LONG):
        command = [sys.executable, "-c", f"{code}({size!r}, {longest})"]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(out))


def grow(size: str, longest: int) -> None:
    """Prints the memory of an idle worker, after a short pair, and (tiny images) after a long pair."""
    one = subject((PAPER if size == "full" else TINY).family(), learned(), Recomputing)
    mb = {"idle": resident("VmRSS")}
    one_pair(one, min(SHORT, longest))
    mb["short"] = resident("VmHWM")
    if size == "tiny":
        one_pair(one, longest)
    print(json.dumps(mb | {"long": resident("VmHWM")}))


def one_pair(one: Subject, window: int) -> None:
    antithetic_pair(one.unroll, perturbation(one), one.truncation(window), with_rp=True)


def resident(field: str) -> float:
    """MB of one field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024
