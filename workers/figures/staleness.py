"""What stale samples cost, beyond the paper: more workers than samples in an outer update, and two remedies.

Workers take turns in one process, each with the parameters of its own last reply, so that with W workers and batches of
B samples a sample is (W - 1) / B updates old: deterministic, and as on a cluster whose workers are equally fast. The
paper's 128 workers and batches of 128 samples are 1 update behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workers.evaluation.jobs import encode
from workers.figures import figure
from workers.figures.fig5 import PROBING
from workers.figures.figure import Job, Kind, Outcome, Results, Settings, Train
from workers.figures.statistics import Interval, mean, paired, word

CLAIM = "Samples that are one update old, as with the paper's 128 workers and batches of 128, cost hardly anything."
NEEDS = ()


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="staleness", kind="turns"):
    """An outer-training with workers in turns, and the evaluation along it."""

    workers: int
    remedy: str  # "", or its name
    seed: int
    tasks: Sequence[int]
    kept: Sequence[int]  # versions that are judged
    judge: Sequence[str]  # settings of the evaluation


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    losses: Sequence[Sequence[float]]  # [versions, tasks] mean over the steps
    staleness: float  # of the applied samples, mean over the second half
    samples: int  # computed, whether applied or rejected


KINDS = (Kind(TrainingJob, Training),)


class Scale(NamedTuple):
    base: Settings
    workers: tuple[int, ...]  # the first is the reference
    remedies: dict[str, Settings]  # with the most workers
    seeds: int
    points: int
    tasks: int


SHORT = ("curriculum.start=10", "curriculum.end=50", "curriculum.updates=100", "outer.updates=100")
SCALES = {
    "mini": Scale(
        ("mini", PROBING, *SHORT),
        workers=(1, 4, 8, 16, 64),
        remedies={"limit 4": ("outer.max_staleness=4",), "half the rate": ("outer.learning_rate=0.0015",)},
        seeds=5,
        points=5,
        tasks=8,
    ),
}
HARDLY = 0.1  # of what was learned with fresh samples: a cost below it counts as hardly any


def jobs(scale: str, results: Results) -> list[Job]:
    chosen = SCALES[scale]
    versions = [round(v) for v in np.linspace(0, figure.config_of(chosen.base).outer.updates, chosen.points)]
    cases = [(count, "") for count in chosen.workers] + [(chosen.workers[-1], name) for name in chosen.remedies]
    return [
        TrainingJob(
            label="-".join([f"workers{count}", *remedy.split(), f"seed{seed}"]),
            settings=(*chosen.base, *chosen.remedies.get(remedy, ()), f"workers.count={count}", f"seed={seed}"),
            workers=count,
            remedy=remedy,
            seed=seed,
            tasks=list(range(5000, 5000 + chosen.tasks)),
            kept=versions,
            judge=list(chosen.base),
        ).named()
        for seed in range(chosen.seeds)
        for count, remedy in cases
    ]


def perform(job: Job, train: Train) -> Job:
    """Trains, and judges theta along the training on outer-train tasks."""
    assert isinstance(job, TrainingJob)
    trained = train(figure.config_of(job.settings), job.kept, stale=True)
    evaluator = figure.evaluator_of(tuple(job.judge))
    thetas = [encode(trained.kept[version]) for version in job.kept]
    late = trained.history[len(trained.history) // 2 :]
    return Training.of(
        job,
        losses=figure.rounded([figure.learned_losses(evaluator, theta, job.tasks) for theta in thetas]),
        staleness=figure.rounded(np.mean([update.staleness.mean for update in late])),
        samples=sum(trained.history[-1].verdicts.values()),
    )


Case = tuple[int, str]  # workers and remedy


def by_case(results: Results) -> dict[Case, list[Training]]:
    """The trainings of each case, by seed."""
    table: dict[Case, list[Training]] = {}
    for one in sorted(figure.of_kind(results, Training), key=lambda one: (one.remedy != "", one.workers, one.seed)):
        table.setdefault((one.workers, one.remedy), []).append(one)
    return table


def curves(trainings: Sequence[Training]) -> np.ndarray:
    """[seeds, versions] mean loss over the tasks."""
    return np.array([np.mean(one.losses, axis=1) for one in trainings])


def costs(results: Results) -> dict[Case, Interval]:
    """By case: the loss at the end minus that with the fewest workers, paired over seeds."""
    table = {case: curves(found)[:, -1] for case, found in by_case(results).items()}
    reference = table.pop(min(table))
    return {case: paired(values, reference) for case, values in table.items()}


def outcome(results: Results) -> Outcome:
    """Student's interval of the paired differences over seeds, against a tenth of what was learned."""
    table, gaps = by_case(results), costs(results)
    reference = curves(table[min(table)])
    learned = float(np.mean(reference[:, 0] - reference[:, -1]))
    unit = min(gaps, key=lambda case: (case[1] != "", abs(np.log(staleness(table[case])))))
    decision = gaps[unit].within(HARDLY * learned)
    numbers = "; ".join(
        f"{named(case)}, {staleness(table[case]):.2g} updates old, {samples(table[case]):.0f} samples computed: {gap}"
        for case, gap in gaps.items()
    )
    return Outcome(
        decision,
        f"One update old (within {HARDLY:.0%} of the {learned:.3g} that were learned): {word(decision)}. Mean loss at the end of "
        f"{table[min(table)][0].kept[-1]} updates, minus that with fresh samples "
        f"({mean(reference[:, -1])}; {len(reference)} seeds): {numbers}.",
    )


def named(case: Case) -> str:
    count, remedy = case
    return f"{count} workers" + (f" with {remedy}" if remedy else "")


def staleness(trainings: Sequence[Training]) -> float:
    return float(np.mean([one.staleness for one in trainings]))


def samples(trainings: Sequence[Training]) -> float:
    return float(np.mean([one.samples for one in trainings]))
