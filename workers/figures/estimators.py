"""Which estimator of the whole problem's gradient has the least mean squared error at equal CPU time, beyond the paper.

The truth is the smoothed gradient of the mean loss over whole inner problems, from two independent halves of backpropagated
pairs whose window is the problem, or of es where that has the smaller variance. An estimate's squared error is its
difference from one half times its difference from the other, which is unbiased; its mean is bias^2 + variance, and the
variance scales with the CPU time of a batch. PES draws new noise in each truncation, so that it smooths a little
differently: what that changes counts as its bias here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from workers.evaluation.jobs import decode, encode
from workers.figures.estimator_errors import Cell, Record, cell, difference, errors, written
from workers.figures.figure import Job, Kind, Outcome, Results, Settings, Train, config_of, input_only, of_kind, rounded
from workers.figures.whole_problems import BATCH, every_estimator, sampler_of, units

CLAIM = (
    "At equal CPU time, PES with rp in the place of its newest draws has a lower mean squared error than rp, es and their "
    "merge, which are biased while windows are shorter than the problem, and than PES and NRES, which are noisy."
)
NEEDS = ()


@dataclass(frozen=True, kw_only=True)
class ThetaJob(Job, figure="estimators", kind="theta"):
    """An outer-training, for theta at its start, in its middle and at its end."""

    problem: str
    kept: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Theta(ThetaJob):
    thetas: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class TruthJob(Job, figure="estimators", kind="truth"):
    """A half of the truth."""

    problem: str
    place: str
    half: int
    pairs: int
    theta: str | None = input_only()


@dataclass(frozen=True, kw_only=True)
class Truth(TruthJob):
    gradient: str
    method: str  # "rp" or "es", whose variance is smaller
    variance: float  # of one pair, summed over the coordinates
    seconds: float  # CPU seconds of one pair by rp


@dataclass(frozen=True, kw_only=True)
class MeasureJob(Job, figure="estimators", kind="measure"):
    """All estimators with windows of one length."""

    problem: str
    place: str
    window: int
    units: int
    theta: str | None = input_only()
    truths: str | None = input_only()  # both halves, with a space between them


@dataclass(frozen=True, kw_only=True)
class Measured(MeasureJob):
    estimators: Mapping[str, Mapping[str, Any]]  # by name: the fields of `Record`
    reference: float  # CPU seconds of a whole problem by rp


KINDS = (Kind(ThetaJob, Theta), Kind(TruthJob, Truth), Kind(MeasureJob, Measured))
PLACES = ("random", "half-trained", "trained")


class Inner(NamedTuple):
    """A kind of inner problem."""

    settings: Settings
    pairs: int  # of a half of the truth
    units: int  # inner problems of each estimator


class Scale(NamedTuple):
    problems: Mapping[str, Inner]
    windows: tuple[float, ...]  # fractions of the problem


def settings(steps: int, *overrides: str) -> Settings:
    """The `mini` scale with a shorter problem and a shorter training."""
    ramp = ("curriculum.start=5", f"curriculum.end={steps // 2}", "curriculum.updates=60")
    return ("mini", f"task.inner_steps={steps}", *ramp, *overrides)


QUADRATIC = settings(
    100,
    *("task.family=quadratic", "optimizer.family=sgd", "optimizer.learning_rate=0.05"),
    *("estimator.sigma=0.02", "outer.learning_rate=0.01", "outer.updates=60"),
)
EXPLODING = ("exploding", "task.inner_steps=100", "curriculum.start=100", "curriculum.end=100", "outer.updates=60")
SCALES = {
    "mini": Scale(
        {
            "quadratic": Inner(QUADRATIC, pairs=400, units=40),
            "dense": Inner(EXPLODING, pairs=60, units=20),
            "convolution": Inner(settings(60, "outer.updates=80"), pairs=60, units=20),
        },
        windows=(0.03, 0.1, 0.5, 1.0),
    ),
}


def jobs(scale: str, results: Results) -> list[Job]:
    """Trainings first, then the truths at the thetas they found, then the estimators against these."""
    chosen = SCALES[scale]
    first = [theta_job(name, inner) for name, inner in chosen.problems.items()]
    found = {one.name: one for one in results}
    listed: list[Job] = [*first]
    for job in first if all(job.name in found for job in first) else ():
        inner, trained = chosen.problems[job.problem], found[job.name]
        assert isinstance(trained, Theta)
        for place, theta in zip(PLACES, trained.thetas, strict=True):
            halves = [truth_job(job, place, theta, half, inner.pairs) for half in (0, 1)]
            truths = [one for half in halves if isinstance(one := found.get(half.name), Truth)]
            listed += halves
            if len(truths) == len(halves):
                listed += [measure_job(job, truths, theta, each, inner.units) for each in windows(job, chosen)]
    return listed


def theta_job(problem: str, inner: Inner) -> ThetaJob:
    updates = config_of(inner.settings).outer.updates
    kept = [0, updates // 2, updates]
    return ThetaJob(label=problem, settings=inner.settings, problem=problem, kept=kept).named()


def truth_job(job: ThetaJob, place: str, theta: str, half: int, pairs: int) -> TruthJob:
    return TruthJob(
        label=f"{job.problem}-{place}-half{half}",
        settings=job.settings,
        problem=job.problem,
        place=place,
        half=half,
        pairs=pairs,
        theta=theta,
    ).named()


def measure_job(job: ThetaJob, truths: Sequence[Truth], theta: str, window: int, units: int) -> MeasureJob:
    return MeasureJob(
        label=f"{job.problem}-{truths[0].place}-window{window}",
        settings=job.settings,
        problem=job.problem,
        place=truths[0].place,
        window=window,
        units=units,
        theta=theta,
        truths=" ".join(one.gradient for one in truths),
    ).named()


def windows(job: ThetaJob, chosen: Scale) -> list[int]:
    return [max(1, round(part * config_of(job.settings).task.longest)) for part in chosen.windows]


def perform(job: Job, train: Train) -> Job:
    if isinstance(job, ThetaJob):
        trained = train(config_of(job.settings), job.kept)
        return Theta.of(job, thetas=[encode(trained.kept[version]) for version in job.kept])
    return truth(job) if isinstance(job, TruthJob) else measured(job)


def truth(job: TruthJob) -> Truth:
    """Both estimators of the same pairs; the better one is the truth."""
    assert job.theta is not None
    length = config_of(job.settings).task.longest
    found = units(sampler_of(job.settings, f"truth {job.half}", length), decode(job.theta), job.pairs)
    kinds = {"rp": found.rp, "es": found.es}
    spread = {name: rows.var(axis=0, ddof=1).sum() for name, rows in kinds.items() if np.isfinite(rows).all()}
    method = min(spread, key=lambda name: spread[name])
    return Truth.of(
        job,
        gradient=encode(kinds[method].mean(axis=0)),
        method=method,
        variance=rounded(spread[method]),
        seconds=rounded(found.seconds),
    )


def measured(job: Job) -> Measured:
    assert isinstance(job, MeasureJob) and job.theta is not None and job.truths is not None
    theta, halves = decode(job.theta), [decode(text).astype(np.float64) for text in job.truths.split()]
    length = config_of(job.settings).task.longest
    reference = units(sampler_of(job.settings, "reference", length), theta, 4).seconds
    table = {}
    for name, estimates in every_estimator(job.settings, job.window, theta, job.units).items():
        biases, variances = errors(estimates.rows, *halves)
        table[name] = Record(*(rounded(part, 4) for part in (biases, variances, estimates.seconds)))._asdict()
    return Measured.of(job, estimators=table, reference=rounded(reference))


Regime = tuple[str, str, int]  # problem, place of theta, window


def cells(results: Results) -> dict[Regime, dict[str, Cell]]:
    """Every estimator in every regime, in batches that take the CPU time of BATCH whole problems by rp."""
    truths = of_kind(results, Truth)
    found: dict[Regime, dict[str, Cell]] = {}
    for one in sorted(of_kind(results, Measured), key=lambda one: (one.problem, PLACES.index(one.place), one.window)):
        halves = [half for half in truths if (half.problem, half.place) == (one.problem, one.place)]
        noise = sum(half.variance / half.pairs for half in halves) / len(halves) ** 2
        table = {name: cell(Record(**record), BATCH * one.reference, noise) for name, record in one.estimators.items()}
        found[one.problem, one.place, one.window] = table
    return found


OWN = "PES + rp"
OTHERS = ("rp", "es", "merged scalar", "PES", "NRES")


def compared(results: Results) -> Iterator[tuple[str, bool | None]]:
    """Of each regime with windows shorter than the problem, and each other estimator: whether `OWN` has the lower error."""
    for table in cells(results).values():
        for name in OTHERS if OWN in table else ():
            if np.isfinite(table[name].error.value):
                above = difference(table[OWN], table[name]).above(0)
                yield name, None if above is None else not above
            else:
                yield name, True if np.isfinite(table[OWN].error.value) else None


def outcome(results: Results) -> Outcome:
    """Decided by regimes, each by Student's interval of the paired differences of squared errors."""
    decisions = list(compared(results))
    lower = {name: sum(better is True for other, better in decisions if other == name) for name in OTHERS}
    higher = {name: sum(better is False for other, better in decisions if other == name) for name in OTHERS}
    of = len(decisions) // len(OTHERS)
    counted = "; ".join(f"{name} {lower[name]} and {higher[name]}" for name in OTHERS)
    holds = False if any(higher.values()) else True if min(lower.values()) == of else None
    return Outcome(
        holds,
        f"In {of} regimes with windows shorter than the problem, the error of {OWN} at equal CPU time is significantly lower, "
        f"and significantly higher, than that of {counted}. Least error: {'; '.join(advice(results))}.",
    )


def advice(results: Results) -> list[str]:
    """For each problem and theta: the estimator and window of least error, windows of the whole problem included."""
    found: dict[tuple[str, str], list[tuple[float, str, bool]]] = {}
    for (problem, place, window), table in cells(results).items():
        for name, one in table.items():
            found.setdefault((problem, place), []).append((one.error.value, f"{name} at {window} steps", one.resolved))
    best = {regime: min(rows) for regime, rows in found.items()}
    return [
        f"{problem}, {place}: {name}{'' if resolved else ' (below resolution)'}"
        for (problem, place), (_, name, resolved) in best.items()
    ]


def table(results: Results) -> str:
    """The errors of batches as a table of Markdown."""
    found = cells(results)
    names = list(dict.fromkeys(name for table in found.values() for name in table))
    lines = ["| problem, theta, window | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for (problem, place, window), row in found.items():
        shown = [written(row[name]) if name in row else "" for name in names]
        lines.append(f"| {problem}, {place}, {window} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"
