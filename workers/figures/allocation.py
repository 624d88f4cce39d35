"""What allocation (`estimator.allocate`, with window `curriculum.hold`) saves, beyond the paper: loss over CPU time.

Two regimes: the preset `exploding`, whose rp explodes, and the `mini` convolution with short windows, where rp has all the
weight. Along each training theta is judged on the same tasks, and the CPU time of its samples is added up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workers.evaluation.jobs import encode
from workers.figures import figure
from workers.figures.cpu_time import cpu_seconds, ratio_of_seconds
from workers.figures.figure import Job, Kind, Outcome, Results, Settings, Train
from workers.figures.statistics import Decision, Interval, every, geometric, mean, paired, word

CLAIM = (
    "Where rp explodes, allocation of rp and of the window reaches the loss of the merge in half of its CPU time; it ends "
    "nowhere more than 2 % worse."
)
NEEDS = ()
HALF, WORSE = 0.5, 0.02


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="allocation", kind="train"):
    """An outer-training of one variant, and the evaluation along it."""

    regime: str
    variant: str
    seed: int
    tasks: Sequence[int]
    kept: Sequence[int]  # versions that are judged
    judge: Sequence[str]  # settings of the evaluation


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    losses: Sequence[float]  # [versions] mean over tasks and steps
    seconds: Sequence[float]  # [versions] CPU seconds of all samples so far, from `cpu_seconds`
    with_rp: float  # fraction of all pairs


KINDS = (Kind(TrainingJob, Training),)
MERGED, ALLOCATED, WITH_WINDOW = "merged", "allocation", "allocation with window"


class Regime(NamedTuple):
    base: Settings
    variants: Mapping[str, Settings]
    explodes: bool


class Scale(NamedTuple):
    regimes: Mapping[str, Regime]
    seeds: int
    points: int
    tasks: int


RP, ALLOCATE = "estimator.probe_rate=1.0", ("estimator.probe_rate=0.05", "estimator.allocate=true")
WINDOW = (*ALLOCATE, "curriculum.hold=true")
TENTH = ("curriculum.start=40", "curriculum.end=40")
EXPLODING = Regime(
    # Half of the preset's updates at twice its rate; fewer classes, whose images take less time to draw than the training.
    ("exploding", "outer.updates=40", "outer.learning_rate=0.04", "dataset.classes=100"),
    {
        MERGED: (RP,),
        ALLOCATED: ALLOCATE,
        WITH_WINDOW: (*WINDOW, "curriculum.start=40", "curriculum.updates=20"),
        "es": ("estimator.use=es", RP),
        "merged, windows of 10 %": (RP, *TENTH),
        "PES + rp, reach 4, windows of 10 %": (RP, *TENTH, "estimator.es=persistent", "estimator.reach=4"),
    },
    explodes=True,
)
MINI = Regime(
    ("mini", "curriculum.start=10", "curriculum.end=50", "curriculum.updates=40", "outer.updates=40"),
    {MERGED: (RP,), ALLOCATED: ALLOCATE, WITH_WINDOW: WINDOW},
    explodes=False,
)
SCALES = {"mini": Scale({"exploding": EXPLODING, "mini": MINI}, seeds=6, points=6, tasks=8)}


def regimes() -> Mapping[str, Regime]:
    """By name."""
    return next(iter(SCALES.values())).regimes


def jobs(scale: str, results: Results) -> list[Job]:
    chosen = SCALES[scale]
    return [
        training(chosen, regime, variant, seed)
        for seed in range(chosen.seeds)
        for regime, found in chosen.regimes.items()
        for variant in found.variants
    ]


def training(chosen: Scale, regime: str, variant: str, seed: int) -> Job:
    found = chosen.regimes[regime]
    settings = (*found.base, *found.variants[variant], f"seed={seed}")
    updates = figure.config_of(settings).outer.updates
    short = "".join(letter for letter in variant if letter.isalnum())
    return TrainingJob(
        label=f"{regime}-{short}-seed{seed}",
        settings=settings,
        regime=regime,
        variant=variant,
        seed=seed,
        tasks=list(range(6000, 6000 + chosen.tasks)),
        kept=[round(v) for v in np.linspace(0, updates, chosen.points)],
        judge=list(found.base),
    ).named()


def perform(job: Job, train: Train) -> Job:
    """Trains, and judges theta along the training on outer-train tasks."""
    assert isinstance(job, TrainingJob)
    trained = train(figure.config_of(job.settings), job.kept)
    evaluator, history = figure.evaluator_of(tuple(job.judge)), trained.history
    thetas = [encode(trained.kept[version]) for version in job.kept]
    seconds = np.cumsum([0.0, *cpu_seconds(history)])
    return Training.of(
        job,
        losses=figure.rounded([np.mean(figure.learned_losses(evaluator, theta, job.tasks)) for theta in thetas], 6),
        seconds=figure.rounded(seconds[list(job.kept)], 4),
        with_rp=figure.rounded(sum(u.rp_pairs for u in history) / sum(u.es_pairs for u in history), 4),
    )


def by_variant(results: Results, regime: str) -> dict[str, list[Training]]:
    """The trainings of each variant in a regime, by seed."""
    known = regimes()[regime].variants
    found = sorted((one for one in figure.of_kind(results, Training) if one.regime == regime), key=lambda one: one.seed)
    table = {variant: [one for one in found if one.variant == variant] for variant in known}
    return {variant: trainings for variant, trainings in table.items() if trainings}


class Against(NamedTuple):
    """A variant against merged, over the same seeds."""

    seconds: Interval  # to the same loss, as a ratio
    loss: Interval  # at the end, minus that of merged, over the mean of merged
    with_rp: float


def against(one: Sequence[Training], other: Sequence[Training]) -> Against:
    pairs = list(zip(one, other))
    ends = [np.array([training.losses[-1] for training in each]) for each in zip(*pairs)]
    return Against(
        seconds=geometric(np.array([ratio_of_seconds(*pair) for pair in pairs])),
        loss=paired(ends[0] / ends[1].mean(), ends[1] / ends[1].mean()),
        with_rp=float(np.mean([first.with_rp for first in one])),
    )


def outcome(results: Results) -> Outcome:
    """Student's intervals over seeds: of the logarithms of ratios of seconds, and of paired differences of losses."""
    decisions: dict[str, dict[str, Decision]] = {ALLOCATED: {}, WITH_WINDOW: {}}
    said = []
    for name, regime in regimes().items():
        table = by_variant(results, name)
        merged = table.pop(MERGED)
        found = {variant: against(trainings, merged) for variant, trainings in table.items()}
        for variant in decisions.keys() & found.keys():
            decisions[variant][f"{name}: at most {WORSE:.0%} worse"] = found[variant].loss.below(WORSE)
            if regime.explodes:
                decisions[variant][f"{name}: half of the CPU time"] = found[variant].seconds.below(HALF)
        numbers = "; ".join(
            f"{variant} {one.seconds} of the CPU time to the same loss, loss at the end {one.loss} higher, rp in "
            f"{one.with_rp:.0%} of the pairs"
            for variant, one in found.items()
        )
        ends = mean(np.array([training.losses[-1] for training in merged]))
        spent = np.mean([training.seconds[-1] for training in merged])
        said.append(
            f"Relative to merged, {name} ({ends} after {spent:.3g} CPU seconds, {len(merged)} seeds): {numbers}"
        )
    judged = "; ".join(
        f"{variant}, {part}: {word(decision)}"
        for variant, parts in decisions.items()
        for part, decision in sorted(parts.items())
    )
    best = decisions[WITH_WINDOW] or decisions[ALLOCATED]
    return Outcome(every(best.values()), f"{judged}. {'. '.join(said)}.")
