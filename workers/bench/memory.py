"""How much memory a pair of long windows takes, by the kernel's account of fresh processes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from workers.bench.figure import Measured
from workers.bench.problems import PAPER, Case, Noise, Subject, learned, subject
from workers.bench.unrolls import SIGMA
from workers.estimators import antithetic_pair

WINDOW = 10_000


def of_a_pair(rounds: int) -> Measured:
    """Peak resident MB of one pair at window 10,000 above the worker that is about to compute it, compiled before.

    10,000 steps of the paper's network take an hour, so the figure is a sum: what a pair of a little more than one segment
    takes, and what the longer window adds on tiny images, where every state has the same size.
    """
    values, details = [], {}
    for _ in range(rounds):
        grown = [in_a_process("grow", size) for size in ("full", "tiny")]
        details = {"full": grown[0], "tiny": grown[1]}
        values.append(grown[0]["short"] - grown[0]["idle"] + grown[1]["long"] - grown[1]["short"])
    return Measured(values, details)


def in_a_process(function: str, *arguments: str) -> dict[str, float]:
    """What a function of this module says in a fresh process, the second time: the first one compiles."""
    code = (
        f"from common import runtime; runtime.prepare(pin=False); from workers.bench import memory; memory.{function}"
    )
    for window in (1, WINDOW):
        command = [sys.executable, "-c", f"{code}(*{arguments!r}, {window})"]
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(out))


def grow(size: str, longest: int) -> None:
    """Prints the memory of an idle worker, after a pair longer than a segment, and (tiny images) after a long one."""
    tiny = Case(replace(PAPER.task, batch_size=1), Noise((8, 8, 3), 150))
    one = subject((PAPER if size == "full" else tiny).family(), learned())
    mb = {"idle": resident("VmRSS")}
    one_pair(one, min(one.unroll.segment + 1, longest))
    mb["short"] = resident("VmHWM")
    if size == "tiny":
        one_pair(one, longest)
    print(json.dumps(mb | {"long": resident("VmHWM")}))


def one_pair(one: Subject, window: int) -> None:
    noise = np.random.default_rng(0).standard_normal(one.theta.size)
    states = (one.state, one.state)
    antithetic_pair(one.unroll, np.asarray(one.theta), noise, SIGMA, one.problem, states, window, with_rp=True)


def resident(field: str) -> float:
    """MB, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024
