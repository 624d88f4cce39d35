"""The races of Figure 6: the curves of tuned optimizers on the same tasks, their differences, and what they show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workers.evaluation.results import TRAILING
from workers.evaluation.tuning import TUNED
from workers.figures.figure import Job, Outcome, Results, input_only, key, of_kind
from workers.figures.statistics import Decision, Interval, every, mean, paired, sign_test, word

TUNED_FOR = {"train": "train", "valid": "test"}  # what is tuned for the left loss is shown on the right one


@dataclass(frozen=True, kw_only=True)
class CurveJob(Job, figure="fig6", kind="curve"):
    """A tuned optimizer on one task, from several initialisations."""

    shown: str = key("name")
    task: int
    starts: int
    theta: str | None = input_only()
    rate: float | None = None
    optimizer: str


@dataclass(frozen=True, kw_only=True)
class Curve(CurveJob):
    steps: Sequence[int]  # [points]
    train: Sequence[Sequence[float]]  # [starts, points] losses
    test: Sequence[Sequence[float]]
    mean_train: Sequence[float]  # [starts] mean losses over the steps
    mean_test: Sequence[float]

    def losses(self, loss: str) -> Sequence[Sequence[float]]:
        return self.train if loss == "train" else self.test

    def means(self, loss: str) -> Sequence[float]:
        return self.mean_train if loss == "train" else self.mean_test


@dataclass(frozen=True, kw_only=True)
class StepTimesJob(Job, figure="fig6", kind="timing"):
    """The timing protocol on all optimizers."""

    theta: str = input_only()
    adam8: str
    baselines: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class StepTimes(StepTimesJob):
    seconds: Mapping[str, float]  # per inner step, by optimizer
    quartiles: Mapping[str, Sequence[float]]


def curves(results: Results, shown: str) -> list[Curve]:
    """Those of one optimizer, by task."""
    return sorted((one for one in of_kind(results, Curve) if one.shown == shown), key=lambda one: one.task)


def means(results: Results, shown: str, loss: str) -> np.ndarray:
    """[tasks] mean over steps and initialisations."""
    return np.array([np.mean(one.means(loss)) for one in curves(results, shown)])


def seconds(results: Results) -> Mapping[str, float]:
    """Per inner step, by optimizer."""
    return of_kind(results, StepTimes)[0].seconds


def means_in_time(results: Results, shown: str, loss: str) -> np.ndarray:
    """[tasks] mean loss over the seconds in which the fastest optimizer makes all its steps."""
    found, cost = curves(results, shown), seconds(results)
    steps = found[0].steps
    instants = np.linspace(0, min(cost.values()) * steps[-1], 200)
    own = np.array(steps) * cost[found[0].optimizer]
    return np.array([np.mean([np.interp(instants, own, line) for line in one.losses(loss)]) for one in found])


class Gap(NamedTuple):
    """A baseline against the learned optimizer."""

    rival: str
    measure: str
    difference: Interval  # baseline - learned, mean over tasks
    wins: int  # tasks


def rivals(tuned_for: str) -> dict[str, str]:
    """The baselines of a learned optimizer, by their names here."""
    tuned = {f"{name} ({tuned_for})": name for name in TUNED}
    return {**tuned, f"adam8 ({tuned_for})": "adam8"}


def gaps(results: Results) -> list[Gap]:
    """Every baseline against the learned optimizer of the same tuning, over steps and over seconds."""
    table = []
    for tuned_for, shown in TUNED_FOR.items():
        for rival in rivals(tuned_for):
            for over, measure in (("steps", means), ("seconds", means_in_time)):
                gap = measure(results, rival, shown) - measure(results, f"learned ({tuned_for})", shown)
                table.append(Gap(rival, f"{shown} loss over {over}", mean(gap), int((gap > 0).sum())))
    return table


def ends(results: Results, shown: str, loss: str) -> np.ndarray:
    """[tasks] mean loss over the last 5 % of the steps and over the initialisations."""
    found = curves(results, shown)
    last = np.array(found[0].steps) > (1 - TRAILING) * found[0].steps[-1]
    return np.array([np.mean(np.array(one.losses(loss))[:, last]) for one in found])


class Part(NamedTuple):
    """A sentence of the paper's section 4.4, and whether it holds."""

    sentence: str
    holds: Decision


def on_test_loss(results: Results) -> list[Part]:
    """The paper's two sentences on test loss, at the end: Student's test of paired differences over tasks."""
    train, valid, searched = (
        ends(results, name, "test") for name in ("learned (train)", "learned (valid)", "adam8 (valid)")
    )
    poor = [paired(train, valid), paired(train, searched)]
    lower = {rival: paired(ends(results, rival, "test"), valid) for rival in rivals("valid")}
    best = min(lower, key=lambda rival: lower[rival].value)
    return [
        Part(
            f"outer-trained for train loss, poor on test loss: it ends at {train.mean():.3f}, {poor[0]} above the one for "
            f"validation loss and {poor[1]} above adam8 (valid)",
            every(gap.above(0) for gap in poor),
        ),
        Part(
            f"outer-trained for validation loss, converges to a lower test loss: it ends at {valid.mean():.3f}, the best "
            f"baseline, {best}, at {ends(results, best, 'test').mean():.3f}, {lower[best]} above it, "
            f"{int((ends(results, best, 'test') > valid).sum())} of {len(valid)} tasks won",
            every(gap.above(0) for gap in lower.values()),
        ),
    ]


def outcome(results: Results) -> Outcome:
    """One part for each kind of loss and axis, against every baseline, and the paper's sentences on test loss."""
    table = gaps(results)
    parts = [
        Part(
            f"better than every baseline on {measure}",
            every(g.difference.above(0) for g in table if g.measure == measure),
        )
        for measure in dict.fromkeys(gap.measure for gap in table)
    ]
    parts += on_test_loss(results)
    tasks = len({one.task for one in of_kind(results, Curve)})
    said = [
        f"{gap.rival}, {gap.measure}: {gap.difference}, wins {gap.wins} of {tasks} (p = {sign_test(gap.wins, tasks):.2g})"
        for gap in table
    ]
    return Outcome(
        every(part.holds for part in parts),
        f"{'; '.join(f'{part.sentence}: {word(part.holds)}' for part in parts)}. "
        f"Baseline minus learned (nats, 95 %): {'; '.join(said)}.",
    )
