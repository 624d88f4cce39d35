"""The outer-trainings of Figure 8: ablations (paper section 4.5), and variants beyond the paper.

The same budget of inner steps for every variant, counted as they happen: merged, rp only, es only; fixed windows of 0.1 %
(where the problem is long enough), 1 %, 10 % and all of the problem; without momentum or time features; persistent and
noise-reuse es; at `long` also merged with `curriculum.hold`, and with a quarter of the budget the three estimators and
merged with `estimator.rp_variance = "recent"`. Each variant has the outer learning rate that is best for it, of the same
three, in a trial of one seed and a quarter of the budget on other tasks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workers.evaluation.jobs import encode
from workers.figures.fig5 import PROBING, condensed, thinned
from workers.figures.figure import (
    Job,
    Kind,
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    learned_losses,
    of_kind,
    rounded,
)

TRIAL_SEED, TRIAL_TASKS, TASKS = 100, 4000, 3000  # seeds and tasks of trials are not among those of the result
TRIAL_SHARE = 0.25  # of the budget
LAST = (0.8, 0.9, 1.0)  # shares of a training whose theta are judged, as the paper averages over its end
SHARES = (0.25, 0.5, *LAST)
POINTS = 40  # of a history
SLACK = 3  # a training may take so many times the expected updates, when its windows are cut short
HOLDING = ("estimator.probe_rate=0.05", "estimator.allocate=true", "curriculum.hold=true")
SLACK_HOLDING = 20  # the same where windows grow only while rp is worth its CPU time


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="fig8", kind="train"):
    """An outer-training of one variant, and the evaluation along it."""

    judge: Sequence[str]  # settings of the evaluation
    variant: str
    rate: float  # of the outer optimizer
    trial: bool  # to choose the rate
    seed: int
    tasks: Sequence[int]
    steps: Sequence[int]  # inner steps at which theta is judged, both unrolls of a pair counted


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    judged: Sequence[Sequence[float]]  # [steps, tasks] mean over the steps of an inner problem
    judged_seconds: Sequence[float]  # [steps] CPU seconds of all samples so far
    thetas: Sequence[str]  # the first, a middle and the last one; of a merged training that is no trial
    versions: Sequence[int]  # of the updates that the next lists are about
    inner_steps: Sequence[int]  # so far
    core_seconds: Sequence[float]  # CPU time so far
    losses: Sequence[float | None]
    windows: Sequence[float | None]
    weight_rp: Sequence[float | None]
    var_rp: Sequence[Sequence[float | None]]  # 5, 50 and 95 % of the coordinates
    var_es: Sequence[Sequence[float | None]]
    updates: int
    diverged: int


KINDS = (Kind(TrainingJob, Training),)
Window = tuple[int, int]  # at the start and at the end


class Scale(NamedTuple):
    base: Settings
    windows: list[int]  # fixed ones
    growing: Window
    budget: int  # steps of all pairs of one training (a pair's two unrolls count once)
    rates: tuple[float, ...]
    seeds: int
    tasks: int
    ablation_seeds: int | None = None  # of variants other than the estimators; None: as many
    holding: bool = False  # whether there is a variant whose window grows only while rp is worth its CPU time
    quarter_seeds: int = 0  # of the variants with a quarter of the budget; 0: there are none


SCALES = {
    "mini": Scale(
        ("mini", PROBING),
        [3, 30, 300],
        (10, 150),
        budget=48_000,
        rates=(0.001, 0.003, 0.01),
        seeds=6,
        tasks=8,
        ablation_seeds=5,
    ),
    "long": Scale(
        ("long",),
        [3, 30, 300, 3000],
        (15, 3000),
        budget=800_000,
        rates=(0.003, 0.01, 0.03),
        seeds=5,
        tasks=8,
        ablation_seeds=3,
        holding=True,
        quarter_seeds=10,
    ),
    "paper": Scale(
        ("paper",),
        [10, 100, 1000, 10_000],
        (50, 10_000),
        budget=4_000_000_000,  # 400,000 inner problems
        rates=(6e-5, 2e-4, 6e-4),
        seeds=5,
        tasks=40,
    ),
}
MERGED, HELD, RECENT = "merged", "merged, window held", "merged, recent variance"
ESTIMATORS = (MERGED, "rp only", "es only")
QUARTER = ", a quarter of the steps"  # of the budget, as in the trials that choose the rates
SHORTER = tuple(name + QUARTER for name in (*ESTIMATORS, RECENT))
LISTED = (*ESTIMATORS, *SHORTER, HELD, "window", "no momentum", "no time", "persistent es", "noise-reuse es")


class Variant(NamedTuple):
    overrides: Settings
    window: Window
    share: float = 1.0  # of the budget


def variants(chosen: Scale) -> Mapping[str, Variant]:
    growing = chosen.growing
    fixed = {f"window {window}": Variant((), (window, window)) for window in chosen.windows}
    uses: dict[str, Settings] = {MERGED: (), "rp only": ("estimator.use=rp",), "es only": ("estimator.use=es",)}
    shorter = {**uses, RECENT: ("estimator.rp_variance=recent",)} if chosen.quarter_seeds else {}
    return {
        **{name: Variant(use, growing) for name, use in uses.items()},
        **{name + QUARTER: Variant(use, growing, TRIAL_SHARE) for name, use in shorter.items()},
        **({HELD: Variant(HOLDING, growing)} if chosen.holding else {}),
        **fixed,
        "no momentum": Variant(("optimizer.momentum_features=false",), growing),
        "no time": Variant(("optimizer.time_features=false",), growing),
        "persistent es": Variant(("estimator.use=es", "estimator.es=persistent"), growing),
        "noise-reuse es": Variant(("estimator.use=es", "estimator.es=noise_reuse"), growing),
    }


def jobs(scale: str, results: Results) -> list[Job]:
    """The trials of all rates, then the trainings of each variant at its best rate: the estimators, then the others.

    No job of a group of variants is listed before all of the group before it have their results.
    """
    chosen, known, listed = SCALES[scale], {one.name for one in results}, dict[str, Job]()
    named = list(variants(chosen))
    shorter, held = [name for name in named if name in SHORTER], [name for name in named if name == HELD]
    others = [name for name in named if name not in (*ESTIMATORS, *shorter, *held)]
    ablation_seeds = chosen.seeds if chosen.ablation_seeds is None else chosen.ablation_seeds
    groups = (ESTIMATORS, chosen.seeds), (shorter, chosen.quarter_seeds), (held, chosen.seeds), (others, ablation_seeds)
    for names, seeds in groups:
        trials = {name: trials_of(chosen, name) for name in names}
        rates = {name: best_rate(tried, results) for name, tried in trials.items()}
        listed |= {trial.name: trial for tried in trials.values() for trial in tried}
        for seed in range(seeds):
            found = ((name, rate) for name in names if (rate := rates[name]) is not None)
            trained = (training(chosen, name, rate, seed, trial=False) for name, rate in found)
            listed |= {job.name: job for job in trained}
        if any(name not in known for name in listed):
            break
    return list(listed.values())


def trials_of(chosen: Scale, name: str) -> list[TrainingJob]:
    """A variant at each rate; one with a quarter of the budget has the trials of its estimator, which have as much."""
    tried = name.removesuffix(QUARTER)
    tried = MERGED if tried == RECENT else tried
    return [training(chosen, tried, rate, TRIAL_SEED, trial=True) for rate in chosen.rates]


def best_rate(trials: Sequence[TrainingJob], results: Results) -> float | None:
    """The rate whose trial ends at the lowest loss; None while a trial lacks its result."""
    ended = {one.name: score(one) for one in of_kind(results, Training)}
    if any(trial.name not in ended for trial in trials):
        return None
    return min(trials, key=lambda trial: ended[trial.name]).rate


def training(chosen: Scale, name: str, rate: float, seed: int, *, trial: bool) -> TrainingJob:
    """One training until its budget of inner steps is spent; the window grows over the updates that this should take."""
    overrides, (start, end), share = variants(chosen)[name]
    budget = round(chosen.budget * (TRIAL_SHARE if trial else share))
    updates = max(1, round(budget / (config_of(chosen.base).outer.batch_samples * (start + end) / 2)))
    first = TRIAL_TASKS if trial else TASKS
    settings = (
        *chosen.base,
        *overrides,
        f"curriculum.start={start}",
        f"curriculum.end={end}",
        f"curriculum.updates={updates}",
        f"outer.updates={(SLACK_HOLDING if name == HELD else SLACK) * updates}",
        f"outer.inner_steps={2 * budget}",
        f"outer.learning_rate={rate}",
        f"seed={seed}",
    )
    return TrainingJob(
        label=f"{name}-{f'rate{rate:g}' if trial else f'seed{seed}'}".translate({ord(" "): None, ord(","): None}),
        settings=settings,
        judge=[*chosen.base, *(o for o in overrides if o.startswith("optimizer."))],
        variant=name,
        rate=rate,
        trial=trial,
        seed=seed,
        tasks=list(range(first, first + chosen.tasks)),
        steps=[round(share * 2 * budget) for share in (LAST if trial else SHARES)],
    ).named()


def perform(job: Job, train: Train) -> Job:
    """Trains, and judges theta along the training on outer-train tasks."""
    assert isinstance(job, TrainingJob)
    trained = train(config_of(job.settings), [0], at_steps=job.steps)
    history = trained.history
    steps, seconds = (np.cumsum([getattr(one, name) for one in history]) for name in ("inner_steps", "cpu_seconds"))
    judged = np.minimum(np.searchsorted(steps, job.steps), len(steps) - 1)
    evaluator, reached = evaluator_of(tuple(job.judge)), [trained.reached[at] for at in job.steps]
    kept = [trained.kept[0], reached[len(reached) // 2], trained.theta]
    return Training.of(
        job,
        judged=rounded([learned_losses(evaluator, encode(theta), job.tasks) for theta in reached]),
        judged_seconds=rounded(seconds[judged]),
        thetas=[encode(theta) for theta in kept] if job.variant == MERGED and not job.trial else [],
        inner_steps=[int(n) for n in thinned(list(steps), POINTS)],
        core_seconds=rounded(thinned(list(seconds), POINTS)),
        updates=history[-1].version,
        diverged=sum(update.diverged for update in history),
        **condensed(history, POINTS),
    )


def score(one: Training) -> float:
    """Mean loss at the end of a training; infinite where it is not finite."""
    value = float(np.mean(np.array(one.judged, float)[-len(LAST) :]))
    return value if math.isfinite(value) else math.inf


def place(variant: str) -> tuple[int, int]:
    """Where a variant is listed: fixed windows by their length."""
    kind, _, length = variant.partition(" ")
    return (LISTED.index("window"), int(length)) if kind == "window" else (LISTED.index(variant), 0)


def by_variant(results: Results) -> dict[str, list[Training]]:
    """The trainings of each variant, by seed, in the order of the variants; no trials.

    Seeds 0, 1, ... as far as all have ended, so that equal places in two lists are equal seeds.
    """
    table: dict[str, list[Training]] = {}
    for one in sorted(of_kind(results, Training), key=lambda one: (*place(one.variant), one.seed)):
        if not one.trial and one.seed == len(table.get(one.variant, [])):
            table.setdefault(one.variant, []).append(one)
    return table
