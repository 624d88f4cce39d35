"""The races of Figure 6: the curves of tuned optimizers on the same tasks, their differences, and what they show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workers.evaluation import search
from workers.evaluation.comparison import LEARNED
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
    train: Sequence[float] | None = None  # [points] losses, mean over the starts; None unless `drawn` names them
    test: Sequence[float] | None = None
    mean_train: Sequence[float]  # [starts] mean losses over the steps
    mean_test: Sequence[float]

    def losses(self, loss: str) -> Sequence[float]:
        line = self.train if loss == "train" else self.test
        assert line is not None, f"{self.shown} has no curve of the {loss} loss"
        return line

    def means(self, loss: str) -> Sequence[float]:
        return self.mean_train if loss == "train" else self.mean_test


@dataclass(frozen=True, kw_only=True)
class StepTimesJob(Job, figure="fig6", kind="timing"):
    """The timing protocol on all optimizers."""

    theta: str = input_only()
    searched: Mapping[str, str]  # thetas, by family
    baselines: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class StepTimes(StepTimesJob):
    seconds: Mapping[str, float]  # per inner step, by optimizer
    quartiles: Mapping[str, Sequence[float]]


def drawn(job: CurveJob) -> tuple[str, ...]:
    """The losses whose curves are kept: the one that it is tuned for, and of learned optimizers both."""
    return tuple(TUNED_FOR.values()) if job.optimizer == LEARNED else (TUNED_FOR[tuned_for(job.shown)],)


def tuned_for(shown: str) -> str:
    """The loss that an optimizer is tuned for, which its name has in brackets."""
    return shown.partition("(")[2].rstrip(")")


def curves(results: Results, shown: str) -> list[Curve]:
    """Those of one optimizer, by task."""
    return sorted((one for one in of_kind(results, Curve) if one.shown == shown), key=lambda one: one.task)


def means(results: Results, shown: str, loss: str) -> np.ndarray:
    """[tasks] mean over steps and initialisations."""
    return np.array([np.mean(one.means(loss)) for one in curves(results, shown)])


def seconds(results: Results) -> Mapping[str, float]:
    """Per inner step, by optimizer: medians over the timings."""
    timed = [one.seconds for one in of_kind(results, StepTimes)]
    return {name: float(np.median([one[name] for one in timed])) for name in timed[0]}


def means_in_time(results: Results, shown: str, rival: str, loss: str) -> np.ndarray:
    """[tasks] mean loss over the seconds in which the rival makes all its steps."""
    found, cost = curves(results, shown), seconds(results)
    steps = found[0].steps
    instants = np.linspace(0, cost[rival] * steps[-1], 200)
    own = np.array(steps) * cost[found[0].optimizer]
    return np.array([np.interp(instants, own, one.losses(loss)).mean() for one in found])


class Gap(NamedTuple):
    """A baseline against a learned optimizer."""

    learned: str
    rival: str
    measure: str
    difference: Interval  # baseline - learned, mean over tasks
    wins: int  # tasks


def learners(results: Results, objective: str) -> list[str]:
    """The learned optimizers for an objective: those of Figure 5, and the included one where it is compared too."""
    shown = (f"{name} ({objective})" for name in ("learned", "included"))
    return [name for name in shown if curves(results, name)]


def rivals(results: Results, objective: str) -> dict[str, str]:
    """The baselines of a learned optimizer, by their names here: those with a grid of rates, then the searched ones."""
    tuned = {one.shown: one.optimizer for one in of_kind(results, Curve) if tuned_for(one.shown) == objective}
    return {shown: name for name in (*TUNED, *search.RANGES) for shown, optimizer in tuned.items() if optimizer == name}


def gaps(results: Results) -> list[Gap]:
    """Every baseline against the learned optimizers of the same tuning, over steps and over seconds."""
    table = []
    for objective, shown in TUNED_FOR.items():
        for learned in learners(results, objective):
            for rival, name in rivals(results, objective).items():
                in_steps = means(results, rival, shown) - means(results, learned, shown)
                in_seconds = means_in_time(results, rival, name, shown) - means_in_time(results, learned, name, shown)
                for over, gap in (("steps", in_steps), ("seconds", in_seconds)):
                    table.append(Gap(learned, rival, f"{shown} loss over {over}", mean(gap), int((gap > 0).sum())))
    return table


def ends(results: Results, shown: str, loss: str) -> np.ndarray:
    """[tasks] mean loss over the last 5 % of the steps and over the initialisations."""
    found = curves(results, shown)
    last = np.array(found[0].steps) > (1 - TRAILING) * found[0].steps[-1]
    return np.array([np.array(one.losses(loss))[last].mean() for one in found])


class Part(NamedTuple):
    """A sentence of the paper's section 4.4, and whether it holds."""

    sentence: str
    holds: Decision


def on_test_loss(results: Results, learned: str = "learned") -> list[Part]:
    """The paper's two sentences on test loss, at the end: Student's test of paired differences over tasks.

    The optimizer for train loss is compared with the searched Adam, or with Adam at the best rate where none is searched.
    """
    against = rivals(results, "valid")
    adam = next(name for name in ("adam8 (valid)", "adam (valid)") if name in against)
    train, valid, of_adam = (ends(results, name, "test") for name in (f"{learned} (train)", f"{learned} (valid)", adam))
    poor = [paired(train, valid), paired(train, of_adam)]
    lower = {rival: paired(ends(results, rival, "test"), valid) for rival in against}
    best = min(lower, key=lambda rival: lower[rival].value)
    return [
        Part(
            f"{learned} for train loss, poor on test loss: it ends at {train.mean():.3f}, {poor[0]} above the one for "
            f"validation loss and {poor[1]} above {adam}",
            every(gap.above(0) for gap in poor),
        ),
        Part(
            f"{learned} for validation loss, converges to a lower test loss: it ends at {valid.mean():.3f}, the best "
            f"baseline, {best}, at {ends(results, best, 'test').mean():.3f}, {lower[best]} above it, "
            f"{int((ends(results, best, 'test') > valid).sum())} of {len(valid)} tasks won",
            every(gap.above(0) for gap in lower.values()),
        ),
    ]


def outcome(results: Results) -> Outcome:
    """One part for each learned optimizer, kind of loss and axis, and the paper's sentences on test loss."""
    table = gaps(results)
    parts = [
        Part(
            f"{learned} better than every baseline on {measure}",
            every(gap.difference.above(0) for gap in table if (gap.learned, gap.measure) == (learned, measure)),
        )
        for learned, measure in dict.fromkeys((gap.learned, gap.measure) for gap in table)
    ]
    for learned in dict.fromkeys(gap.learned.partition(" ")[0] for gap in table):
        parts += on_test_loss(results, learned)
    tasks = len({one.task for one in of_kind(results, Curve)})
    said = [
        f"{gap.rival} minus {gap.learned}, {gap.measure}: {gap.difference}, wins {gap.wins} of {tasks} "
        f"(p = {sign_test(gap.wins, tasks):.2g})"
        for gap in table
    ]
    return Outcome(
        every(part.holds for part in parts),
        f"{'; '.join(f'{part.sentence}: {word(part.holds)}' for part in parts)}. In nats, 95 %: {'; '.join(said)}.",
    )
