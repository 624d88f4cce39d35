"""Random search over the hyper-parameters of Adam, RMSProp or momentum, each with regularisation and decay of the rate.

Adam's eight are those of section 4.4; appendix E of the paper has the others, whose ranges it does not say.

Draws are uniform in the logarithm, and compared on tasks of outer-train classes by the train loss and by the
validation loss, never by test images (the paper: by train and by test loss). Successive halving rejects early, by
*rungs*: every draw gets a few inner runs, the best of them get more. All draws meet the same tasks, and a draw survives
by either loss. With one rung nothing is rejected; the paper does not say that it rejected any.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from common import streams
from workers.evaluation.jobs import encode, sha256

LOSSES = ("train", "valid")
TASKS = 5000  # the first of the tasks that draws are compared on
Searched = Literal["adam8", "rmsprop7", "momentum6"]  # families of optimizers
Ranges = dict[str, tuple[float, float]]  # of the decimal logarithm, in the order of theta
REST: Ranges = {  # T: inner steps of a task
    "exponential_decay": (-3.0, 1.0),  # times 1 / T
    "linear_decay": (-3.0, 0.0),  # times 1 / T
    "l1": (-8.0, -2.0),
    "l2": (-8.0, -1.0),
}
RANGES: dict[Searched, Ranges] = {
    "adam8": {
        "learning_rate": (-5.0, 0.0),
        "beta1": (-3.0, 0.0),  # of 1 - beta1
        "beta2": (-5.0, -0.3),  # of 1 - beta2
        "epsilon": (-10.0, -1.0),
        **REST,
    },
    "rmsprop7": {
        "learning_rate": (-5.0, 0.0),
        "decay": (-5.0, -0.3),  # of 1 - decay
        "epsilon": (-20.0, -2.0),  # under the root
        **REST,
    },
    "momentum6": {
        "learning_rate": (-4.0, 1.0),
        "momentum": (-3.0, 0.0),  # of 1 - momentum
        **REST,
    },
}
ADAM: Searched = "adam8"


class Rung(NamedTuple):
    """A stage of successive halving."""

    runs: int  # inner runs that each draw gets at this rung
    keep: int  # draws that survive by each of the losses; unused at the last rung


class Plan(NamedTuple):
    """A random search."""

    draws: int
    rungs: tuple[Rung, ...]
    seed: int = 0
    family: Searched = ADAM

    @property
    def inner_runs(self) -> int:
        """The most inner runs that the search can take."""
        counts = [self.draws, *(len(LOSSES) * rung.keep for rung in self.rungs[:-1])]
        return sum(min(count, self.draws) * rung.runs for count, rung in zip(counts, self.rungs))

    @property
    def name(self) -> str:
        rungs = "-".join(f"{rung.runs}x{rung.keep}" for rung in self.rungs[:-1])
        of = "" if self.family == ADAM else f"{self.family}-"  # the names that searches had when they were Adam's only
        return f"search-{of}valid-{self.draws}-{rungs and rungs + '-'}{self.rungs[-1].runs}-seed{self.seed}"


def rejecting(count: int, runs: int, family: Searched = ADAM) -> Plan:
    """`count` draws in three rungs: a sixteenth of the runs for all, three sixteenths for the best tenth, then the rest."""
    first, second = max(1, runs // 16), max(1, 3 * runs // 16)
    last = max(1, runs - first - second)
    return Plan(
        count, (Rung(first, max(1, count // 10)), Rung(second, max(1, count // 40)), Rung(last, 1)), family=family
    )


def keeping_all(count: int, runs: int, family: Searched = ADAM) -> Plan:
    """`count` draws with `runs` inner runs each, as the paper's (2,000 and 80)."""
    return Plan(count, (Rung(runs, 1),), family=family)


MINI = Plan(200, (Rung(2, 25), Rung(6, 8), Rung(16, 1)))
PAPER = keeping_all(2000, 80)
PAPER_REJECTING = rejecting(2000, 80)


class SearchJob(NamedTuple):
    """The inner runs of one draw at one rung."""

    draw: int
    rung: int
    theta: str  # of the draw, as in `UnrollJob`
    tasks: tuple[int, ...]
    family: str = ADAM

    @property
    def name(self) -> str:
        return f"search-valid-{sha256(self.theta)[:12]}-{self.tasks[0]}-{len(self.tasks)}"

    def to_json(self) -> dict[str, Any]:
        fields = {**self._asdict(), "tasks": list(self.tasks)}
        if self.family == ADAM:
            del fields["family"]  # as before there were others
        return {"item": self.name, "kind": "search", **fields}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        tasks, family = tuple(record["tasks"]), record.get("family", ADAM)
        return cls(record["draw"], record["rung"], record["theta"], tasks, family)


class SearchResult(NamedTuple):
    """Mean losses [tasks] of one draw at one rung."""

    job: SearchJob
    train: tuple[float, ...]
    valid: tuple[float, ...]

    def losses(self, loss: str) -> tuple[float, ...]:
        return self.train if loss == "train" else self.valid

    def to_json(self) -> dict[str, Any]:
        return {**self.job.to_json(), "train": list(self.train), "valid": list(self.valid)}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        return cls(SearchJob.from_json(line), tuple(line["train"]), tuple(line["valid"]))


def draws(plan: Plan, inner_steps: int) -> np.ndarray:
    """theta [draws, P] of the plan's family, float32."""
    ranges = RANGES[plan.family]
    low, high = np.array(list(ranges.values())).T
    logs = streams.generator(streams.SEARCH, plan.seed).uniform(low, high, (plan.draws, len(ranges)))
    logs[:, [name.endswith("_decay") for name in ranges]] -= np.log10(inner_steps)
    return np.asarray(np.log(10) * logs, np.float32)


def jobs(plan: Plan, inner_steps: int, results: Sequence[SearchResult]) -> list[SearchJob]:
    """The jobs known so far: those of the first rung, and of each later one once the rung before it is complete."""
    thetas, alive, first, listed = draws(plan, inner_steps), list(range(plan.draws)), TASKS, []
    found = {result.job.name: result for result in results}
    for number, rung in enumerate(plan.rungs):
        tasks = tuple(range(first, first + rung.runs))
        now = [SearchJob(draw, number, encode(thetas[draw]), tasks, plan.family) for draw in alive]
        listed += now
        done = [found[job.name] for job in now if job.name in found]
        if len(done) < len(now) or number == len(plan.rungs) - 1:
            break
        known = [result for result in results if result.job.rung <= number]
        alive, first = survivors(known, done, rung.keep), first + rung.runs
    return listed


def survivors(results: Sequence[SearchResult], last: Sequence[SearchResult], keep: int) -> list[int]:
    """The draws of `last` that are among the best by one of the losses, over all their runs in `results`.

    `results` must not contain those of later rungs: the outcome of a rung would change with what its survivors did next.
    """
    alive = {result.job.draw for result in last}
    chosen: set[int] = set()
    for loss in LOSSES:
        means = {draw: mean for draw, mean in mean_losses(results, loss).items() if draw in alive}
        chosen |= set(sorted(means, key=lambda draw: (means[draw], draw))[:keep])
    return sorted(chosen)


def mean_losses(results: Sequence[SearchResult], loss: str) -> dict[int, float]:
    """By draw, over all its runs."""
    found: dict[int, list[float]] = {}
    for result in results:
        found.setdefault(result.job.draw, []).extend(result.losses(loss))
    return {draw: float(np.mean(values)) for draw, values in found.items()}


class Best(NamedTuple):
    """The best draw by one loss."""

    theta: str
    losses: tuple[float, ...]  # of all its runs


def best(results: Sequence[SearchResult], loss: str) -> Best:
    """The best of the draws that reached the last rung, by its mean over all its runs."""
    top = max(result.job.rung for result in results)
    means = mean_losses(results, loss)
    last = {result.job.draw: result.job.theta for result in results if result.job.rung == top}
    draw = min(last, key=lambda draw: (means[draw], draw))
    return Best(last[draw], tuple(x for result in results if result.job.draw == draw for x in result.losses(loss)))


def describe(theta: np.ndarray, family: Searched = ADAM) -> str:
    """The hyper-parameters of a theta [P], as text."""
    shown = dict(zip(RANGES[family], np.exp(np.asarray(theta, np.float64))))
    names = {name: f"1 - {name}" for name in ("beta1", "beta2", "decay", "momentum")}
    return ", ".join(f"{names.get(name, name)} {value:.3g}" for name, value in shown.items())
