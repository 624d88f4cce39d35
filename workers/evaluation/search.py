"""Random search over Adam's eight hyper-parameters: Adam + regularisation + decay (paper section 4.4).

Draws are uniform in the logarithm, tuned on tasks of outer-train classes, for the train loss and for the test loss.
Early rejection goes by *rungs*: every draw gets a few inner runs, the best of them more. All draws meet the same tasks,
and a draw survives by either loss. With one rung nothing is rejected; the paper does not say that it rejected any.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.optimizer.hand_designed import ADAM8
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.items import Item, Record, encode, sha256

LOSSES = ("train", "test")
TASKS = 5000  # the first of the tasks it is tuned on
RANGES: dict[str, tuple[float, float]] = {  # of the decimal logarithm; T is the length of the inner problem
    "learning_rate": (-5.0, 0.0),
    "beta1": (-3.0, 0.0),  # of 1 - beta1
    "beta2": (-5.0, -0.3),  # of 1 - beta2
    "epsilon": (-10.0, -1.0),
    "exponential_decay": (-3.0, 1.0),  # times 1 / T
    "linear_decay": (-3.0, 0.0),  # times 1 / T
    "l1": (-8.0, -2.0),
    "l2": (-8.0, -1.0),
}


class Rung(NamedTuple):
    runs: int  # inner runs that each draw gets at this rung
    keep: int  # draws that go on, by each of the losses; at the last rung without meaning


class Plan(NamedTuple):
    draws: int
    rungs: tuple[Rung, ...]
    seed: int = 0

    @property
    def inner_runs(self) -> int:
        """At most."""
        counts = [self.draws, *(len(LOSSES) * rung.keep for rung in self.rungs[:-1])]
        return sum(min(count, self.draws) * rung.runs for count, rung in zip(counts, self.rungs))

    @property
    def name(self) -> str:
        rungs = "-".join(f"{rung.runs}x{rung.keep}" for rung in self.rungs[:-1])
        return f"search-{self.draws}-{rungs and rungs + '-'}{self.rungs[-1].runs}-seed{self.seed}"


def rejecting(count: int, runs: int) -> Plan:
    """`count` draws in three rungs: a sixteenth of the runs for all, three sixteenths for the best tenth, then the rest."""
    first, second = max(1, runs // 16), max(1, 3 * runs // 16)
    last = max(1, runs - first - second)
    return Plan(count, (Rung(first, max(1, count // 10)), Rung(second, max(1, count // 40)), Rung(last, 1)))


def keeping_all(count: int, runs: int) -> Plan:
    """`count` draws with `runs` inner runs each, as the paper's (2,000 and 80)."""
    return Plan(count, (Rung(runs, 1),))


MINI = Plan(200, (Rung(2, 25), Rung(6, 8), Rung(16, 1)))
PAPER = keeping_all(2000, 80)
PAPER_REJECTING = rejecting(2000, 80)


def draws(plan: Plan, inner_steps: int) -> np.ndarray:
    """theta [draws, 8] of the family `adam8`, float32."""
    low, high = np.array([RANGES[name] for name in ADAM8]).T
    logs = np.random.default_rng(plan.seed).uniform(low, high, (plan.draws, len(ADAM8)))
    logs[:, [ADAM8.index("exponential_decay"), ADAM8.index("linear_decay")]] -= np.log10(inner_steps)
    return (np.log(10) * logs).astype(np.float32)


def items(plan: Plan, inner_steps: int, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The items known so far: the first rung, and each later one once the rung before it is complete."""
    thetas, alive, first, listed = draws(plan, inner_steps), list(range(plan.draws)), TASKS, []
    found = {row["item"]: row for row in rows}
    for number, rung in enumerate(plan.rungs):
        tasks = list(range(first, first + rung.runs))
        now = [item(draw, encode(thetas[draw]), number, tasks) for draw in alive]
        listed += now
        done = [found[one["item"]] for one in now if one["item"] in found]
        if len(done) < len(now) or number == len(plan.rungs) - 1:
            break
        known = [row for row in rows if row["kind"] == "search" and row["rung"] <= number]
        alive, first = survivors(known, done, rung.keep), first + rung.runs
    return listed


def item(draw: int, theta: str, rung: int, tasks: list[int]) -> Record:
    name = f"search-{sha256(theta)[:12]}-{tasks[0]}-{len(tasks)}"
    return {"item": name, "kind": "search", "draw": draw, "rung": rung, "theta": theta, "tasks": tasks}


def perform(evaluator: Evaluator, record: Mapping[str, Any]) -> Record:
    """Mean losses [runs] of one draw on each of its tasks."""
    runs = [Item("adam8", task, theta=record["theta"], outer_split="outer_train") for task in record["tasks"]]
    done = [evaluator.run(run) for run in runs]
    return {**record, **{loss: [row[f"mean_{loss}"] for row in done] for loss in LOSSES}}


def survivors(rows: Sequence[Mapping[str, Any]], last: Sequence[Mapping[str, Any]], keep: int) -> list[int]:
    """The draws of `last` that are among the best by one of the losses, over all their runs among `rows`.

    These must not hold runs of later rungs: who survived a rung would change with what its survivors did next.
    """
    alive = {row["draw"] for row in last}
    chosen: set[int] = set()
    for loss in LOSSES:
        means = {draw: mean for draw, mean in mean_losses(rows, loss).items() if draw in alive}
        chosen |= set(sorted(means, key=lambda draw: (means[draw], draw))[:keep])
    return sorted(chosen)


def mean_losses(rows: Sequence[Mapping[str, Any]], loss: str) -> dict[int, float]:
    """By draw, over all its runs."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row["kind"] == "search":
            found.setdefault(row["draw"], []).extend(row[loss])
    return {draw: float(np.mean(values)) for draw, values in found.items()}


def best(rows: Sequence[Mapping[str, Any]], loss: str) -> str:
    """The encoded theta of the best draw of those that reached the last rung."""
    rows = [row for row in rows if row["kind"] == "search"]
    top = max(row["rung"] for row in rows)
    means, last = mean_losses(rows, loss), {row["draw"]: row["theta"] for row in rows if row["rung"] == top}
    return last[min(last, key=lambda draw: (means[draw], draw))]


def describe(theta: np.ndarray) -> str:
    """The eight hyper-parameters of a theta [8], for people."""
    shown = dict(zip(ADAM8, np.exp(np.asarray(theta, np.float64))))
    names = {"beta1": "1 - beta1", "beta2": "1 - beta2"}
    return ", ".join(f"{names.get(name, name)} {value:.3g}" for name, value in shown.items())
