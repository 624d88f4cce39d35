"""What a mixture, the normalizer, augmentation and rp are worth to an optimizer for many kinds of tasks, beyond the paper.

Trainings of the preset `generalist` from a fresh theta, and of what it is without one of its parts, at about equal CPU time. Along each
training theta is judged on the families of the preset `unseen`, none of which it was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import gmean

from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import encode
from workers.figures import figure
from workers.figures.cpu_time import cpu_seconds, ratio_of_seconds
from workers.figures.figure import Job, Kind, Outcome, Results, Settings, Train
from workers.figures.statistics import Decision, Interval, every, geometric, word

CLAIM = (
    "A mixture, the normalizer and augmentation each lower the loss on families of tasks that were not trained on, and both "
    "estimators merged reach the loss of es alone in a fifth of its CPU time."
)
NEEDS = ()
FIFTH = 0.2


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="mixtures", kind="train"):
    """An outer-training of one variant, and the evaluation along it."""

    variant: str
    seed: int
    tasks: Sequence[int]  # of each family
    kept: Sequence[int]  # versions that are judged
    judge: Sequence[str]  # settings of the evaluation


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    by_family: Mapping[str, Sequence[float]]  # [versions] geometric mean over the tasks of the mean loss over the steps
    losses: Sequence[float]  # [versions] geometric mean over the families
    seconds: Sequence[float]  # [versions] CPU seconds of all samples so far, from `cpu_seconds`
    with_rp: float  # fraction of all pairs


KINDS = (Kind(TrainingJob, Training),)
WHOLE, ONE_FAMILY, RAW, AUGMENTED, ES = "whole", "one family", "no normalizer", "augmented", "es"


class Variant(NamedTuple):
    settings: Settings
    updates: int  # as many as take the CPU time of the whole, about


class Scale(NamedTuple):
    variants: Mapping[str, Variant]
    judge: Settings
    seeds: int
    points: int
    tasks: int


RULE = ("optimizer.family=mlp_muon", "optimizer.layers=16", "optimizer.progress=true")
LENGTHS = "task.inner_steps=[100,500]"  # the unseen tasks have 500 steps
WITHOUT_RP = (
    "estimator.use=es",
    "estimator.merge=scalar",
    "estimator.allocate=false",
    "estimator.probe_rate=1.0",
    "curriculum.hold=false",
)
ALONE = (  # the family `conv` of the preset `generalist`
    "quickstart",
    *(LENGTHS, "task.normalizer=initial", *RULE),
    *("estimator.merge=family", "estimator.probe_rate=0.1", "estimator.allocate=true", "curriculum.hold=true"),
    *("outer.batch_samples=6", "outer.clip_value=0.05", "outer.learning_rate=0.01"),
)
SCALES = {
    "mini": Scale(
        {
            WHOLE: Variant(("generalist", LENGTHS), 100),
            ONE_FAMILY: Variant(ALONE, 100),
            RAW: Variant(("generalist", LENGTHS, "task.normalizer=none"), 100),
            AUGMENTED: Variant(("generalist", LENGTHS, "task.augment=global,tensor", "task.augment_range=3"), 100),
            ES: Variant(("generalist", LENGTHS, *WITHOUT_RP), 330),
        },
        judge=("unseen", *RULE),
        seeds=3,
        points=5,
        tasks=3,
    )
}


def jobs(scale: str, results: Results) -> list[Job]:
    chosen = SCALES[scale]
    return [training(chosen, variant, seed) for seed in range(chosen.seeds) for variant in chosen.variants]


def training(chosen: Scale, variant: str, seed: int) -> Job:
    own = chosen.variants[variant]
    return TrainingJob(
        label=f"{variant.replace(' ', '')}-seed{seed}",
        settings=(*own.settings, f"outer.updates={own.updates}", f"seed={seed}"),
        variant=variant,
        seed=seed,
        tasks=list(range(6000, 6000 + chosen.tasks)),
        kept=[round(v) for v in np.linspace(0, own.updates, chosen.points)],
        judge=list(chosen.judge),
    ).named()


@lru_cache(maxsize=1)
def judges(settings: Settings) -> dict[str, Evaluator]:
    """Of each family of a mixture."""
    return {member.name: Evaluator(member.config) for member in figure.config_of(settings).members}


def perform(job: Job, train: Train) -> Job:
    """Trains, and judges theta along the training on outer-test tasks of families that it has not seen."""
    assert isinstance(job, TrainingJob)
    trained = train(figure.config_of(job.settings), job.kept)
    thetas = [encode(trained.kept[version]) for version in job.kept]
    by_family = {
        name: [gmean(figure.learned_losses(evaluator, theta, job.tasks, outer_split="outer_test")) for theta in thetas]
        for name, evaluator in judges(tuple(job.judge)).items()
    }
    seconds, history = np.cumsum([0.0, *cpu_seconds(trained.history)]), trained.history
    return Training.of(
        job,
        by_family=figure.rounded(by_family, 6),
        losses=figure.rounded([gmean(losses) for losses in zip(*by_family.values())], 6),
        seconds=figure.rounded(seconds[list(job.kept)], 4),
        with_rp=figure.rounded(sum(u.rp_pairs for u in history) / sum(u.es_pairs for u in history), 4),
    )


def by_variant(results: Results) -> dict[str, list[Training]]:
    """The trainings of each variant, by seed."""
    found = sorted(figure.of_kind(results, Training), key=lambda one: one.seed)
    names = dict.fromkeys(one.variant for one in found)
    return {variant: [one for one in found if one.variant == variant] for variant in names}


def loss_at(one: Training, seconds: float) -> float:
    """The loss after this CPU time, interpolated between judged thetas."""
    return float(np.interp(seconds, one.seconds, one.losses))


class Against(NamedTuple):
    """A variant against the whole, over the seeds that both have."""

    loss: Interval  # as a ratio, at the CPU time of the shorter of the two trainings
    seconds: Interval  # of the whole to the loss that both reach, over those of the variant


def against(one: Sequence[Training], whole: Sequence[Training]) -> Against:
    pairs = [(variant, own) for variant in one for own in whole if variant.seed == own.seed]
    ends = [min(variant.seconds[-1], own.seconds[-1]) for variant, own in pairs]
    losses = [loss_at(variant, end) / loss_at(own, end) for (variant, own), end in zip(pairs, ends)]
    seconds = [ratio_of_seconds(own, variant) for variant, own in pairs]
    return Against(geometric(np.array(losses)), geometric(np.array(seconds)))


def outcome(results: Results) -> Outcome:
    """Student's intervals of the logarithms of ratios, over seeds."""
    table = by_variant(results)
    whole = table.pop(WHOLE)
    found = {variant: against(trainings, whole) for variant, trainings in table.items()}
    decisions: dict[str, Decision] = {
        "a mixture lowers the loss": found[ONE_FAMILY].loss.above(1),
        "the normalizer lowers the loss": found[RAW].loss.above(1),
        "augmentation lowers the loss": found[AUGMENTED].loss.below(1),
        "a fifth of the CPU time of es": found[ES].seconds.below(FIFTH),
    }
    judged = "; ".join(f"{part}: {word(decision)}" for part, decision in decisions.items())
    numbers = "; ".join(
        f"{variant} ({_end(table[variant])}): {one.loss} times the loss at equal CPU time; the whole takes {one.seconds} times its "
        f"CPU time to the same loss"
        for variant, one in found.items()
    )
    return Outcome(
        every(decisions.values()), f"{judged}. The whole ({_end(whole)}), {len(whole)} seeds. Against it {numbers}."
    )


def _end(trainings: Sequence[Training]) -> str:
    spent = np.mean([one.seconds[-1] for one in trainings])
    return f"ends at {gmean([one.losses[-1] for one in trainings]):.3g} after {spent:.3g} CPU seconds"
