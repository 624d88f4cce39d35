"""Skipping rp while it has no weight (`estimator.probe_rate`), beyond the paper: the same training for less.

The preset `exploding` outer-trained with rp in every sample and with rp in a tenth of them, from the same seeds; theta
is judged along both trainings on the same tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common import jsonlines
from common.update_record import UpdateRecord
from workers.evaluation.jobs import encode
from workers.figures.figure import (
    Job,
    Kind,
    Outcome,
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    learned_losses,
    of_kind,
    rounded,
)
from workers.figures.statistics import Interval, every, geometric, paired, word

CLAIM = (
    "Where gradients explode, rp has no weight: most samples can do without it, for more outer updates per second and "
    "the same outer-training curve."
)
NEEDS = ()


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="probing", kind="train"):
    """An outer-training with rp in a fraction of the samples, and the evaluation along it."""

    tasks: Sequence[int]
    rate: float  # estimator.probe_rate
    seed: int
    kept: Sequence[int]  # versions that are judged
    judge: Sequence[str]  # settings of the evaluation


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    losses: Sequence[Sequence[float]]  # [versions, tasks] mean over the steps
    history: Sequence[float]  # [updates] outer losses
    ratios: Sequence[float | str | None]  # [updates] of `log_ratio`
    skipped: float  # fraction of all pairs without rp
    seconds: float  # between outer updates


KINDS = (Kind(TrainingJob, Training),)


class Scale(NamedTuple):
    base: Settings
    seeds: int
    points: int
    tasks: int


WITH, WITHOUT = 1.0, 0.1  # probe rates
ENDS = (slice(0, 8), slice(-8, None))  # updates of the training's beginning and end
CLOSE = 0.05  # of the loss: a difference within it counts as none
SCALES = {
    "mini": Scale(("exploding",), seeds=6, points=6, tasks=12),
    "paper": Scale(("paper",), seeds=5, points=20, tasks=40),
}


def jobs(scale: str, results: Results) -> list[Job]:
    chosen = SCALES[scale]
    versions = [round(v) for v in np.linspace(0, config_of(chosen.base).outer.updates, chosen.points)]
    return [
        TrainingJob(
            label=f"rate{rate}-seed{seed}",
            settings=(*chosen.base, f"estimator.probe_rate={rate}", f"seed={seed}"),
            tasks=list(range(4000, 4000 + chosen.tasks)),
            rate=rate,
            seed=seed,
            kept=versions,
            judge=list(chosen.base),
        ).named()
        for seed in range(chosen.seeds)
        for rate in (WITH, WITHOUT)
    ]


def perform(job: Job, train: Train) -> Job:
    """Trains, and judges theta along the training on outer-train tasks."""
    assert isinstance(job, TrainingJob)
    trained = train(config_of(job.settings), job.kept)
    evaluator = evaluator_of(tuple(job.judge))
    return Training.of(
        job,
        losses=rounded([learned_losses(evaluator, encode(trained.kept[version]), job.tasks) for version in job.kept]),
        history=rounded([update.loss for update in trained.history]),
        ratios=[log_ratio(update) for update in trained.history],
        skipped=skipped(trained.history),
        seconds=seconds(trained.history),
    )


def log_ratio(update: UpdateRecord) -> float | str | None:
    """log10 of the variance of rp over that of es, median coordinate; None where one is unknown, infinity as text."""
    rp, es = update.var_rp.q50, update.var_es.q50
    return jsonlines.writable(float(np.log10(rp / es))) if rp and es else None


def skipped(history: Sequence[UpdateRecord]) -> float:
    """Fraction of all pairs without rp."""
    return float(1 - sum(update.rp_pairs for update in history) / sum(update.es_pairs for update in history))


def seconds(history: Sequence[UpdateRecord]) -> float:
    """Median between two outer updates, over the second half: the policy needs some updates before it skips."""
    times = [update.time for update in history[len(history) // 2 :]]
    return float(np.median(np.diff(times)))


def at_rate(results: Results, rate: float) -> list[Training]:
    """The trainings with one probe rate, by seed."""
    return sorted((one for one in of_kind(results, Training) if one.rate == rate), key=lambda one: one.seed)


def curves(results: Results, rate: float) -> np.ndarray:
    """[seeds, versions] mean loss over the tasks."""
    return np.array([np.mean(one.losses, axis=1) for one in at_rate(results, rate)])


def gap(results: Results) -> tuple[Interval, float]:
    """Mean loss along the training with skipping minus without, over seeds, and the loss itself."""
    one, other = (curves(results, rate)[:, 1:].mean(axis=1) for rate in (WITHOUT, WITH))
    return paired(one, other), float(other.mean())


def speed(results: Results) -> Interval:
    """Outer updates per second with skipping, over those without: geometric mean over the seeds."""
    pairs = zip(at_rate(results, WITH), at_rate(results, WITHOUT), strict=True)
    return geometric(np.array([one.seconds / other.seconds for one, other in pairs]))


def outcome(results: Results) -> Outcome:
    """Student's tests over the seeds: of the difference against a margin, and of the logarithm of the speedup."""
    difference, loss = gap(results)
    faster = speed(results)
    parts = {
        f"the same loss (within {CLOSE:.0%})": difference.within(CLOSE * loss),
        "more updates per second": faster.above(1),
    }
    always = [one.ratios for one in at_rate(results, WITH)]
    first, last = (np.median([float(v) for ratios in always for v in ratios[part] if v is not None]) for part in ENDS)
    without = np.mean([one.skipped for one in at_rate(results, WITHOUT)])
    return Outcome(
        every(parts.values()),
        f"{'; '.join(f'{part}: {word(decision)}' for part, decision in parts.items())}. The variance of rp is "
        f"10^{first:.1f} times that of es in the first updates, 10^{last:.1f} times in the last. With rp in a tenth of the "
        f"samples while it has no weight ({without:.0%} of all pairs did without it) there are {faster} times as many outer "
        f"updates per second (geometric mean); the mean loss along the training is {difference} higher, of {loss:.3g} "
        f"({len(always)} seeds, each with the same start).",
    )
