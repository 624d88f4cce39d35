"""Peak memory of a pair of long windows, as the kernel reports it for new processes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from workers.bench.figure import Measured
from workers.bench.problems import PAPER, Case, Noise, Subject, learned, subject
from workers.bench.unrolls import perturbation
from workers.estimators import antithetic_pair

WINDOW = 10_000


def of_a_pair(rounds: int) -> Measured:
    """Peak resident MB of one pair at window 10,000 minus those of an idle worker; compilation is excluded.

    10,000 steps of the paper's network take an hour, so the figure is a sum: the memory of a pair that is a little
    longer than one segment, and what the long window adds on tiny images, for which every state has the same size.
    """
    values, details = [], {}
    for _ in range(rounds):
        grown = [in_a_process("grow", size) for size in ("full", "tiny")]
        details = {"full": grown[0], "tiny": grown[1]}
        values.append(grown[0]["short"] - grown[0]["idle"] + grown[1]["long"] - grown[1]["short"])
    return Measured(values, details)


def in_a_process(function: str, *arguments: str) -> dict[str, float]:
    """The output of a function of this module in a new process; an earlier process fills the compilation cache."""
    code = (
        f"from common import runtime; runtime.prepare(pin=False); from workers.bench import memory; memory.{function}"
    )
    for window in (1, WINDOW):
        command = [sys.executable, "-c", f"{code}(*{arguments!r}, {window})"]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(out))


def grow(size: str, longest: int) -> None:
    """Prints the memory of an idle worker, after a pair longer than a segment, and (tiny images) after a long pair."""
    tiny = Case(replace(PAPER.task, batch_size=1), Noise((8, 8, 3), 150))
    one = subject((PAPER if size == "full" else tiny).family(), learned())
    mb = {"idle": resident("VmRSS")}
    one_pair(one, min(one.unroll.segment + 1, longest))
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
