"""Appendix E: all hyper-parameters of Adam, RMSProp and momentum, by random search and by outer-training (section 4.4).

Each rule has decays of its rate and penalties on the weights as well. The search rejects early by successive halving
(`workers.evaluation.search`), on tasks of outer-train classes; Adam's eight are also outer-trained by this system. What
is found meets tasks of unseen classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from workers.evaluation import search
from workers.evaluation.jobs import UnrollJob, encode
from workers.evaluation.perform import run_draw
from workers.evaluation.search import ADAM, LOSSES, Plan, SearchJob, SearchResult
from workers.figures.fig5 import OBJECTIVES, PROBING
from workers.figures.figure import (
    Job,
    Kind,
    Outcome,
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    of_kind,
    rounded,
)
from workers.figures.statistics import Decision, Interval, every, mean, paired, word

CLAIM = "A search for RMSProp and momentum, and outer-training instead of Adam's search, end about where Adam's search does."
NEEDS = ()
SIMILAR = 0.05  # of the loss of Adam's search: a gap below it counts as similar
JUDGED = {"train": "train", "valid": "test"}  # the loss of the comparison, by the loss that was tuned for
TRAINED = "adam8, outer-trained"


@dataclass(frozen=True, kw_only=True)
class DrawsJob(Job, figure="searches", kind="draws"):
    """One rung of the search, for some of the draws of a plan."""

    plan: str
    family: str
    rung: int
    draws: Sequence[int]
    first: int  # of the tasks
    runs: int


@dataclass(frozen=True, kw_only=True)
class Draws(DrawsJob):
    train: Sequence[float]  # [draws] mean loss over the runs and their steps
    valid: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, figure="searches", kind="train"):
    """An outer-training of Adam's eight hyper-parameters."""

    objective: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Training(TrainingJob):
    theta: str
    inner_steps: int  # both unrolls of a pair counted


@dataclass(frozen=True, kw_only=True)
class JudgementJob(Job, figure="searches", kind="judgement"):
    """Hyper-parameters on unseen tasks."""

    contender: str
    family: str
    tuned_for: str
    theta: str
    tasks: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Judgement(JudgementJob):
    losses: Sequence[float]  # [tasks] mean over the steps, of `JUDGED`


KINDS = (Kind(DrawsJob, Draws), Kind(TrainingJob, Training), Kind(JudgementJob, Judgement))


class Scale(NamedTuple):
    base: Settings
    plans: tuple[Plan, ...]  # one for each family
    outer: Settings  # of the outer-trainings
    seeds: int
    tasks: int
    block: int = 50  # draws of one job


def plans(draws: int, runs: int) -> tuple[Plan, ...]:
    return tuple(search.rejecting(draws, runs, family) for family in search.RANGES)


SCALES = {
    "mini": Scale(
        ("mini",),
        plans(2000, 80),
        (
            "optimizer.family=adam8",
            "outer.learning_rate=0.05",
            "outer.schedule=cosine",
            "outer.updates=150",
            "curriculum.end=300",
            "curriculum.updates=100",
            PROBING,
        ),
        seeds=3,
        tasks=40,
    )
}


def jobs(scale: str, results: Results) -> list[Job]:
    """The outer-trainings and the rungs of the searches known so far; after all of these, the judgements."""
    chosen = SCALES[scale]
    listed: list[Job] = [
        TrainingJob(
            label=f"{objective}-seed{seed}",
            settings=(*chosen.base, *chosen.outer, *overrides, f"seed={seed}"),
            objective=objective,
            seed=seed,
        ).named()
        for objective, overrides in OBJECTIVES.items()
        for seed in range(chosen.seeds)
    ]
    for plan in chosen.plans:
        listed += rungs(chosen, plan, results)
    known = {one.name for one in results}
    if any(job.name not in known for job in listed):
        return listed
    return [*listed, *judgements(chosen, results)]


def rungs(chosen: Scale, plan: Plan, results: Results) -> Iterator[DrawsJob]:
    """The jobs of a search, in blocks of draws."""
    steps = config_of(chosen.base).task.longest
    found = search.jobs(plan, steps, searched(plan, steps, results))
    for number in range(len(plan.rungs)):
        alive = [one for one in found if one.rung == number]
        for start in range(0, len(alive), chosen.block):
            some = alive[start : start + chosen.block]
            yield DrawsJob(
                label=f"{plan.family}-rung{number}-{start}",
                settings=chosen.base,
                plan=plan.name,
                family=plan.family,
                rung=number,
                draws=[one.draw for one in some],
                first=some[0].tasks[0],
                runs=len(some[0].tasks),
            ).named()


def searched(plan: Plan, inner_steps: int, results: Results) -> list[SearchResult]:
    """The results of a plan, as `workers.evaluation.search` takes them: the mean in the place of each run."""
    thetas = search.draws(plan, inner_steps)
    return [
        SearchResult(
            SearchJob(draw, one.rung, encode(thetas[draw]), tuple(range(one.first, one.first + one.runs)), one.family),
            (train,) * one.runs,
            (valid,) * one.runs,
        )
        for one in of_kind(results, Draws)
        if one.plan == plan.name
        for draw, train, valid in zip(one.draws, one.train, one.valid)
    ]


def judgements(chosen: Scale, results: Results) -> Iterator[JudgementJob]:
    config = config_of(chosen.base)
    tasks = list(range(config.evaluation.seed, config.evaluation.seed + chosen.tasks))
    thetas = {
        (plan.family, plan.family, loss): search.best(searched(plan, config.task.longest, results), loss).theta
        for plan in chosen.plans
        for loss in LOSSES
    } | {(f"{TRAINED}, seed {one.seed}", ADAM, one.objective): one.theta for one in of_kind(results, Training)}
    for (contender, family, tuned_for), theta in thetas.items():
        yield JudgementJob(
            label=f"{contender}-{tuned_for}".replace(" ", "").replace(",", "-"),
            settings=chosen.base,
            contender=contender,
            family=family,
            tuned_for=tuned_for,
            theta=theta,
            tasks=tasks,
        ).named()


def perform(job: Job, train: Train) -> Job:
    if isinstance(job, TrainingJob):
        trained = train(config_of(job.settings), [0])
        steps = sum(update.inner_steps for update in trained.history)
        return Training.of(job, theta=encode(trained.theta), inner_steps=int(steps))
    evaluator = evaluator_of(tuple(job.settings))
    if isinstance(job, DrawsJob):
        plan = next(plan for scale in SCALES.values() for plan in scale.plans if plan.name == job.plan)
        thetas, tasks = search.draws(plan, evaluator.config.task.longest), tuple(range(job.first, job.first + job.runs))
        done = [run_draw(evaluator, SearchJob(n, job.rung, encode(thetas[n]), tasks, job.family)) for n in job.draws]
        return Draws.of(job, **{loss: rounded([np.mean(one.losses(loss)) for one in done]) for loss in LOSSES})
    assert isinstance(job, JudgementJob)
    runs = [evaluator.run(UnrollJob(job.family, task, theta=job.theta)) for task in job.tasks]
    return Judgement.of(job, losses=rounded([run.mean(JUDGED[job.tuned_for]) for run in runs]))


def losses(results: Results, tuned_for: str) -> dict[str, np.ndarray]:
    """[tasks] loss of each contender, the seeds of an outer-training averaged."""
    found: dict[str, list[Sequence[float]]] = {}
    for one in of_kind(results, Judgement):
        if one.tuned_for == tuned_for:
            found.setdefault(TRAINED if one.contender.startswith(TRAINED) else one.contender, []).append(one.losses)
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def gaps(results: Results, tuned_for: str) -> dict[str, Interval]:
    """The loss of each contender minus that of Adam's search, paired over tasks."""
    table = losses(results, tuned_for)
    return {name: paired(values, table[ADAM]) for name, values in table.items() if name != ADAM}


def outcome(results: Results) -> Outcome:
    """Student's intervals of the paired differences over tasks, against a twentieth of the loss of Adam's search."""
    parts: dict[str, Decision] = {}
    sentences = []
    for tuned_for, judged in JUDGED.items():
        reference, found = losses(results, tuned_for)[ADAM], gaps(results, tuned_for)
        for name, gap in found.items():
            parts[f"{name} for {tuned_for} loss"] = gap.within(SIMILAR * float(reference.mean()))
        numbers = ", ".join(f"{name} {gap}" for name, gap in found.items())
        sentences.append(
            f"Mean {judged} loss on {len(reference)} unseen tasks, tuned for {tuned_for} loss, minus that of Adam's search "
            f"({mean(reference)}): {numbers}."
        )
    said = "; ".join(f"{name}: {word(decision)}" for name, decision in parts.items())
    return Outcome(
        every(parts.values()), f"Within {SIMILAR:.0%} of Adam's search: {said}. {' '.join(sentences)} {costs(results)}"
    )


def costs(results: Results) -> str:
    """Inner steps of a search and of a training. A step of a training costs a few times one of a search."""
    config = config_of(tuple(of_kind(results, Judgement)[0].settings))
    runs: dict[str, int] = {}
    for one in of_kind(results, Draws):
        runs[one.family] = runs.get(one.family, 0) + one.runs * len(one.draws)
    steps = ", ".join(f"{name} {count * config.task.longest:.3g}" for name, count in runs.items())
    trained = np.mean([one.inner_steps for one in of_kind(results, Training)])
    return f"Inner steps of a search: {steps}; of an outer-training: {trained:.3g}."
