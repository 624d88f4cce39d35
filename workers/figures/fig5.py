"""Figure 5: outer-training improves train and unseen tasks alike, and starts differ (paper section 4.3).

Several random starts for both objectives; each is evaluated along its training on tasks of outer-train and of
outer-test classes, against Adam at the best rate of each task. The best start by outer-train loss is the learned
optimizer of the other figures.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from common.update_record import UpdateRecord
from workers.evaluation.jobs import UnrollJob, encode
from workers.evaluation.tuning import LossTable, grid_rates
from workers.figures.figure import (
    Job,
    Json,
    Kind,
    Outcome,
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    input_only,
    learned_losses,
    of_kind,
    rounded,
)
from workers.figures.statistics import Decision, difference, every, mean, paired, word

CLAIM = (
    "Outer-training improves tasks of outer-train and of unseen classes alike, past tuned Adam; random starts differ."
)
NEEDS = ()
LITTLE = 0.1  # of what is learned: outer-overfitting below it counts as little


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="fig5", kind="train"):
    """An outer-training from one random start."""

    objective: str
    seed: int
    versions_kept: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    thetas: Mapping[str, str]  # by version
    versions: Sequence[int]  # of the updates that the other lists are about
    losses: Sequence[float | None]
    windows: Sequence[float | None]
    weight_rp: Sequence[float | None]
    var_rp: Sequence[Sequence[float | None]]  # 5, 50 and 95 % of the coordinates
    var_es: Sequence[Sequence[float | None]]
    inner_steps: int


@dataclass(frozen=True, kw_only=True)
class AdamJob(Job, figure="fig5", kind="adam"):
    """Adam on the grid of rates, on tasks of one outer split."""

    objective: str
    split: str
    tasks: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Adam(AdamJob):
    rates: Sequence[float]
    losses: Sequence[Sequence[float]]  # [tasks, rates] mean over the steps


@dataclass(frozen=True, kw_only=True)
class EvaluationJob(Job, figure="fig5", kind="evaluation"):
    """One theta of a training, on tasks of both outer splits."""

    version: int
    theta: str = input_only()
    objective: str
    seed: int
    tasks: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Evaluation(EvaluationJob):
    outer_train: Sequence[float]  # [tasks] mean over the steps
    outer_test: Sequence[float]


T = TypeVar("T")
KINDS = (Kind(TrainingJob, Training), Kind(AdamJob, Adam), Kind(EvaluationJob, Evaluation))


class Scale(NamedTuple):
    base: Settings
    seeds: int
    points: int  # of a training at which it is evaluated
    tasks: int
    of_objective: Mapping[str, Settings] = {}  # settings of the trainings for one objective


OBJECTIVES: dict[str, Settings] = {
    "train": (),
    "valid": ("estimator.objective=valid", "estimator.outer_batches=1"),
}
SPLITS = ("outer_train", "outer_test")
PROBING = "estimator.probe_rate=0.25"  # rp costs six times what es does
VALID = (  # as in the preset quickstart-valid-mlp
    "estimator.sigma=0.03",
    "outer.updates=230",
    "outer.learning_rate=0.008",
    "outer.schedule=cosine",
)
SCALES = {
    "mini": Scale(("mini", PROBING), seeds=5, points=6, tasks=40),
    "wallclock": Scale(("wallclock",), seeds=3, points=2, tasks=12, of_objective={"valid": VALID}),
    "paper": Scale(("paper",), seeds=5, points=20, tasks=40),
}


def jobs(scale: str, results: Results) -> list[Job]:
    chosen = SCALES[scale]
    listed: list[Job] = []
    for objective, overrides in OBJECTIVES.items():
        base = (*chosen.base, *overrides)
        learning = (*base, *chosen.of_objective.get(objective, ()))
        versions = [round(v) for v in np.linspace(0, config_of(learning).outer.updates, chosen.points)]
        for seed in range(chosen.seeds):
            label, settings = f"train-{objective}-seed{seed}", (*learning, f"seed={seed}")
            training = TrainingJob(
                label=label, settings=settings, objective=objective, seed=seed, versions_kept=versions
            )
            listed.append(training.named())
        for split in SPLITS:
            label, tasks = f"adam-{objective}-{split}", list(range(chosen.tasks))
            adam = AdamJob(label=label, settings=base, objective=objective, split=split, tasks=tasks)
            listed.append(adam.named())
    for trained in of_kind(results, Training):
        listed += evaluations(chosen, trained)
    return listed


def evaluations(chosen: Scale, trained: Training) -> list[Job]:
    """One job for each point of one training: a theta on all tasks of both outer splits."""
    return [
        EvaluationJob(
            label=f"{trained.objective}-seed{trained.seed}-v{version}",
            settings=(*chosen.base, *OBJECTIVES[trained.objective]),
            version=int(version),
            theta=theta,
            objective=trained.objective,
            seed=trained.seed,
            tasks=list(range(chosen.tasks)),
        ).named()
        for version, theta in trained.thetas.items()
    ]


def perform(job: Job, train: Train) -> Job:
    if isinstance(job, TrainingJob):
        return learn(job, train)
    if isinstance(job, AdamJob):
        return tune_adam(job)
    assert isinstance(job, EvaluationJob)
    evaluator, losses = evaluator_of(job.settings), {}
    for split in SPLITS:
        losses[split] = rounded(learned_losses(evaluator, job.theta, job.tasks, job.objective, split))
    return Evaluation.of(job, **losses)


def learn(job: TrainingJob, train: Train) -> Training:
    trained = train(config_of(job.settings), job.versions_kept)
    thetas = {str(version): encode(theta) for version, theta in trained.kept.items()}
    steps = sum(update.inner_steps for update in trained.history)
    return Training.of(job, thetas=thetas, inner_steps=steps, **condensed(trained.history))


def thinned(values: Sequence[T], points: int) -> Sequence[T]:
    """About so many of the values, at equal distances."""
    return values[:: max(1, len(values) // points)]


def condensed(history: Sequence[UpdateRecord], points: int = 100) -> Json:
    """What figures show of a history, for about so many updates."""
    shown = thinned(history, points)

    def numbers(values: Iterable[float | None]) -> list[float | None]:
        return [None if v is None else rounded(v) for v in values]

    return {
        "versions": [update.version for update in shown],
        "losses": numbers(update.loss for update in shown),
        "windows": numbers(update.windows.mean for update in shown),
        "weight_rp": numbers(update.weight_rp.mean for update in shown),
        "var_rp": [numbers(update.var_rp[::2]) for update in shown],  # 5, 50 and 95 %
        "var_es": [numbers(update.var_es[::2]) for update in shown],
    }


def tune_adam(job: AdamJob) -> Adam:
    evaluator = evaluator_of(job.settings)
    rates = grid_rates(evaluator.config.evaluation)
    losses = []
    for task in job.tasks:
        runs = [UnrollJob("adam", task, rate=rate, outer_split=job.split) for rate in rates]
        losses.append([evaluator.run(run).mean(job.objective) for run in runs])
    return Adam.of(job, rates=rates, losses=rounded(losses))


def tuned_adam(results: Results, objective: str, split: str) -> np.ndarray:
    """[tasks] mean loss of Adam at the best rate of each task."""
    found = next(one for one in of_kind(results, Adam) if (one.objective, one.split) == (objective, split))
    return LossTable.of_rates(found.rates, np.transpose(found.losses)).best()


class Curve(NamedTuple):
    """The evaluations along one training."""

    versions: list[int]
    outer_train: np.ndarray  # [versions, tasks] mean losses
    outer_test: np.ndarray

    def of(self, split: str) -> np.ndarray:
        return self.outer_train if split == "outer_train" else self.outer_test


def curves(results: Results, objective: str) -> dict[int, Curve]:
    """By the seed of the start."""
    table: dict[int, list[Evaluation]] = {}
    for one in of_kind(results, Evaluation):
        if one.objective == objective:
            table.setdefault(one.seed, []).append(one)
    found = {seed: sorted(ones, key=lambda one: one.version) for seed, ones in sorted(table.items())}
    return {
        seed: Curve(
            [one.version for one in ones],
            np.array([one.outer_train for one in ones]),
            np.array([one.outer_test for one in ones]),
        )
        for seed, ones in found.items()
    }


def best_training(results: Results, objective: str) -> Training | None:
    """The start with the least outer-train loss at its end; None before all are evaluated."""
    trained = {one.seed: one for one in of_kind(results, Training) if one.objective == objective}
    found = curves(results, objective)
    if not trained or any(
        seed not in found or len(found[seed].versions) < len(trained[seed].thetas) for seed in trained
    ):
        return None
    return trained[min(found, key=lambda seed: found[seed].outer_train[-1].mean())]


def best_theta(results: Results, objective: str) -> str | None:
    """The learned optimizer of the other figures, encoded."""
    trained = best_training(results, objective)
    return None if trained is None else trained.thetas[max(trained.thetas, key=int)]


def outcome(results: Results) -> Outcome:
    """Student's test of paired differences over tasks, of the best start."""
    parts, decisions = [], list[Decision]()
    for objective in OBJECTIVES:
        best = best_training(results, objective)
        assert best is not None, "the figure is not complete"
        found = curves(results, objective)
        test, train = found[best.seed].outer_test, found[best.seed].outer_train
        gap = mean(test[-1] - tuned_adam(results, objective, "outer_test"))
        over = difference(test[-1], train[-1])
        worst = max(found.values(), key=lambda curve: curve.outer_train[-1].mean())
        apart = paired(worst.outer_test[-1], test[-1])  # chosen on other tasks than it is measured on
        finals = [curve.outer_test[-1].mean() for curve in found.values()]
        fell, learned = mean(test[-1] - test[0]), math.log(config_of(best.settings).task.classes) - test[-1].mean()
        little = f"outer-overfits by less than {LITTLE:.0%} of the {learned:.3g} below guessing"
        claims = {
            "learns": fell.below(0),
            "ends below Adam": gap.below(0),
            little: over.below(LITTLE * learned),
            "starts differ": apart.above(0),
        }
        decisions += claims.values()
        said = ", ".join(f"{name}: {word(decision)}" for name, decision in claims.items())
        parts.append(
            f"{objective} objective ({said}): the best of {len(finals)} starts changes the mean loss on unseen tasks by {fell}, "
            f"to {gap} from Adam at the best rate of each task; unseen minus outer-train tasks {over}; "
            f"starts end between {min(finals):.3g} and {max(finals):.3g}, the worst on outer-train tasks {apart} above the best"
        )
    return Outcome(every(decisions), "; ".join(parts) + ".")
