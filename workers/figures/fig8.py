"""Figure 8: the ablations (paper section 4.5), and two estimators beyond the paper.

The same budget of inner steps for every variant: merged, rp only, es only; fixed windows of a hundredth (mini: a
fiftieth), a tenth (a fifth) and all of the problem; without momentum or time features; persistent and noise-reuse es.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workers.evaluation.jobs import encode
from workers.figures.fig5 import PROBING
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
from workers.figures.statistics import Decision, every, mean, paired, steadier, word

CLAIM = (
    "Merged is better and steadier than rp or es alone; the growing window beats fixed ones; momentum features are "
    "needed, time features hardly."
)
NEEDS = ()


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="fig8", kind="train"):
    """An outer-training of one variant, and the evaluation of its end."""

    judge: Sequence[str]  # settings of the evaluation
    variant: str
    seed: int
    tasks: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    losses: Sequence[Sequence[float]]  # [thetas, tasks] mean over the steps
    history: Sequence[float]  # outer losses
    versions: Sequence[int]  # of these
    updates: int
    inner_steps: int
    diverged: int


KINDS = (Kind(TrainingJob, Training),)
Window = tuple[int, int]  # at the start and at the end


class Scale(NamedTuple):
    base: Settings
    windows: list[int]  # fixed ones
    growing: Window
    budget: int  # inner steps of all pairs of one training (a pair's two unrolls count once)
    seeds: int
    tasks: int


SCALES = {
    # The fixed windows are 2 %, 20 % and 100 % of the problem; the paper's budget is 400,000 inner problems.
    "mini": Scale(("mini", PROBING), [6, 60, 300], (10, 150), budget=48_000, seeds=6, tasks=8),
    "paper": Scale(("paper",), [10, 100, 1000], (50, 10_000), budget=4_000_000_000, seeds=5, tasks=40),
}
HARDLY = 0.1  # of what momentum features are worth: an effect below it counts as hardly any
LAST = (0.8, 0.9, 1.0)  # fractions of a training whose theta are judged, as the paper averages over its end


class Variant(NamedTuple):
    overrides: Settings
    window: Window


def variants(chosen: Scale) -> Mapping[str, Variant]:
    growing = chosen.growing
    fixed = {f"window {window}": Variant((), (window, window)) for window in chosen.windows}
    return {
        "merged": Variant((), growing),
        "rp only": Variant(("estimator.use=rp",), growing),
        "es only": Variant(("estimator.use=es",), growing),
        **fixed,
        "no momentum": Variant(("optimizer.momentum_features=false",), growing),
        "no time": Variant(("optimizer.time_features=false",), growing),
        "persistent es": Variant(("estimator.use=es", "estimator.es=persistent"), growing),
        "noise-reuse es": Variant(("estimator.use=es", "estimator.es=noise_reuse"), growing),
    }


def jobs(scale: str, results: Results) -> list[Job]:
    chosen = SCALES[scale]
    return [
        training(chosen, name, variant, seed)
        for seed in range(chosen.seeds)
        for name, variant in variants(chosen).items()
    ]


def training(chosen: Scale, name: str, variant: Variant, seed: int) -> TrainingJob:
    """As many outer updates as the budget allows; the window grows over all of them."""
    overrides, (start, end) = variant
    batch = config_of(chosen.base).outer.batch_samples
    updates = max(1, round(chosen.budget / (batch * (start + end) / 2)))
    ramp = (f"curriculum.start={start}", f"curriculum.end={end}", f"curriculum.updates={updates}")
    return TrainingJob(
        label=f"{name}-seed{seed}".replace(" ", ""),
        settings=(*chosen.base, *overrides, *ramp, f"outer.updates={updates}", f"seed={seed}"),
        judge=[*chosen.base, *(o for o in overrides if o.startswith("optimizer."))],
        variant=name,
        seed=seed,
        tasks=list(range(3000, 3000 + chosen.tasks)),
    ).named()


def perform(job: Job, train: Train) -> Job:
    """Trains, and judges the end of the training on outer-train tasks."""
    assert isinstance(job, TrainingJob)
    config = config_of(job.settings)
    versions = sorted({round(fraction * config.outer.updates) for fraction in LAST})
    trained = train(config, versions)
    evaluator = evaluator_of(tuple(job.judge))
    shown = trained.history[:: max(1, len(trained.history) // 50)]
    return Training.of(
        job,
        losses=rounded([learned_losses(evaluator, encode(trained.kept[version]), job.tasks) for version in versions]),
        history=rounded([update.loss for update in shown]),
        versions=[update.version for update in shown],
        updates=config.outer.updates,
        inner_steps=sum(update.inner_steps for update in trained.history),
        diverged=sum(update.diverged for update in trained.history),
    )


def scores(results: Results) -> dict[str, np.ndarray]:
    """[seeds] mean loss at the end of training, by variant."""
    table: dict[str, list[float]] = {}
    for one in sorted(of_kind(results, Training), key=lambda one: one.seed):
        table.setdefault(one.variant, []).append(float(np.mean(one.losses)))
    return {name: np.array(values) for name, values in table.items()}


def outcome(results: Results) -> Outcome:
    """Student's tests of paired differences over seeds; Pitman and Morgan's of their variances."""
    table = scores(results)
    merged = table.pop("merged")
    gaps = {name: paired(values, merged) for name, values in table.items()}
    alone = ("rp only", "es only")
    without_momentum, without_time = (gaps[f"no {feature}"] for feature in ("momentum", "time"))
    parts: dict[str, Decision] = {
        "merged better than rp and es alone": every(gaps[name].above(0) for name in alone),
        "and steadier": every(steadier(merged, table[name]) for name in alone),
        "growing window better than fixed": every(gaps[name].above(0) for name in table if name.startswith("window")),
        "momentum needed": without_momentum.above(0),
        f"time hardly (within {HARDLY:.0%} of momentum)": without_time.within(HARDLY * abs(without_momentum.value)),
    }
    said = "; ".join(f"{name}: {word(decision)}" for name, decision in parts.items())
    numbers = "; ".join(f"{name} {gap}" for name, gap in gaps.items())
    spreads = {"merged": merged, **{name: table[name] for name in alone}}
    spread = ", ".join(f"{name} {values.std(ddof=1):.2g}" for name, values in spreads.items())
    return Outcome(
        every(parts.values()),
        f"{said}. Mean loss at the end of training, minus that of merged ({mean(merged)}; {len(merged)} seeds): "
        f"{numbers}. Standard deviation over seeds: {spread}.",
    )
