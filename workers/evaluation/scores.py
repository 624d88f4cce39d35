"""Scores of a comparison: final losses, steps and seconds to a target, and what they cost.

An optimizer stands for itself on a task by its setting of the least final loss of the objective, from the first
initialisation. A target is a baseline's trailing mean loss after 100, 75 or 50 % of its steps; the time to it is the
first step after which an optimizer's own trailing mean is at or below it, for the baseline as well. What never reaches
a target has infinite time and a speedup of 0. Test images are reported and decide nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from workers.evaluation.results import BySplit, UnrollResult
from workers.evaluation.statistics import Estimate, algoperf_score, estimate, mean_of_logs, performance_ratios
from workers.evaluation.tuning import Setting

LEARNED = "learned"
TARGETS = (100, 75, 50)  # percent of the baseline's steps


class TaskScore(NamedTuple):
    """One optimizer on one task, at its setting of the least final loss."""

    task: int
    optimizer: str
    setting: Setting
    final: BySplit[float]  # mean loss over the last 5 % of the steps
    mean: float  # of the objective, over all steps
    steps: float  # to the target of the task's best baseline; infinite: never
    seconds: float


class Side(NamedTuple):
    """What one optimizer was given."""

    optimizer: str
    trials: int  # settings of its hyper-parameters that were run; 1: none was chosen
    rejected: tuple[str, ...]  # settings that did not run on all tasks
    core_seconds: float  # of all its unrolls, by the timing protocol
    seconds_per_step: float
    final: float  # mean over the tasks, of the objective
    score: float  # AlgoPerf's, among all optimizers of the comparison (or of several: `workers.evaluation.pooling`)


class Versus(NamedTuple):
    """The learned optimizer against one baseline at one target."""

    target: int  # percent of the baseline's steps
    steps: np.ndarray  # [tasks] speedup in steps
    seconds: np.ndarray  # [tasks] speedup in seconds
    speedup_steps: Estimate
    speedup_seconds: Estimate
    final_ratio: float | None  # mean final loss over that of the baseline; None where one is not finite
    wins: int  # tasks on which the learned optimizer ends at the lower loss
    algoperf_score: float  # of the learned optimizer, among the two

    def to_json(self, suffix: str = "") -> dict[str, float | None]:
        """The keys of `--json`, each with a suffix before `_low` and `_high`."""
        numbers: dict[str, float | None] = {}
        for name, found in (("speedup_steps", self.speedup_steps), ("speedup_seconds", self.speedup_seconds)):
            key = name + suffix
            numbers |= {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}
        return {**numbers, f"final_ratio{suffix}": self.final_ratio, f"algoperf_score{suffix}": self.algoperf_score}


class Scores(NamedTuple):
    """The learned optimizer against each baseline, and against the best one of each task."""

    tasks: tuple[int, ...]
    steps: int  # of an inner problem
    best: Versus  # against, on each task, the baseline with the least final train loss, at its 100 % target
    by_baseline: Mapping[str, tuple[Versus, ...]]  # a `Versus` for each of `TARGETS`
    sides: tuple[Side, ...]  # the learned optimizer first
    per_task: tuple[TaskScore, ...]
    ratios: Mapping[str, np.ndarray]  # [tasks] of the performance profile, by optimizer

    def side(self, name: str) -> Side:
        return next(side for side in self.sides if side.optimizer == name)

    def to_json(self) -> dict[str, Any]:
        """The numbers of `--json`: against the best baseline of each task, and against each of them."""
        suffixes = {100: "", 75: "_75", 50: "_50"}
        each = {
            name: {key: value for versus in all_ for key, value in versus.to_json(suffixes[versus.target]).items()}
            | {"trials": self.side(name).trials, "core_seconds": self.side(name).core_seconds}
            | {"rejected": list(self.side(name).rejected)}
            for name, all_ in self.by_baseline.items()
        }
        return {**self.best.to_json(), "baselines": each}


NO_SCORES = (
    *(f"speedup_{unit}{end}" for unit in ("steps", "seconds") for end in ("", "_low", "_high")),
    "final_ratio",
    "algoperf_score",
    "baselines",
)  # the keys of `Scores.to_json`


Starts = dict[int, UnrollResult]  # by initialisation
Chosen = dict[int, Starts]  # by task: an optimizer at its best setting


def score(unrolls: Sequence[UnrollResult], tasks: Sequence[int], objective: str) -> Scores | None:
    """Scores of the one learned optimizer among the unrolls; None where an optimizer has no complete unroll of a task.

    Args:
      tasks: those that every optimizer has run.

    Results that are not `scored` take no part.
    """
    own = [u for u in unrolls if u.task in tasks and u.outer_split == "outer_test" and u.scored]
    names = sorted({u.optimizer for u in own} - {LEARNED})
    chosen = {name: chosen_of([u for u in own if u.optimizer == name], objective) for name in (LEARNED, *names)}
    if not names or any(set(tasks) - one.keys() for one in chosen.values()):
        return None
    finals = {name: np.array([one[task][0].final(objective) for task in tasks]) for name, one in chosen.items()}
    best = [min(names, key=lambda name: chosen[name][task][0].final("train")) for task in tasks]
    rivals = {task: chosen[name][task] for task, name in zip(tasks, best)}
    targets = [target(rivals[task][0], 100) for task in tasks]
    steps = {n: np.array([steps_to(one[t][0], goal) for t, goal in zip(tasks, targets)]) for n, one in chosen.items()}
    pace = {n: np.array([one[t][0].seconds_per_step for t in tasks]) for n, one in chosen.items()}
    ratios = performance_ratios({name: steps[name] * pace[name] for name in chosen})
    first = [u for u in own if u.initialisation == 0]
    versus_best = _versus(chosen[LEARNED], rivals, tasks, objective, 100)
    return Scores(
        tasks=tuple(tasks),
        steps=chosen[LEARNED][tasks[0]][0].steps[-1],
        best=versus_best._replace(algoperf_score=algoperf_score(ratios[LEARNED])),
        by_baseline={
            name: tuple(_versus(chosen[LEARNED], chosen[name], tasks, objective, percent) for percent in TARGETS)
            for name in names
        },
        sides=tuple(
            _side(name, [u for u in first if u.optimizer == name], float(finals[name].mean()), ratios[name])
            for name in chosen
        ),
        per_task=tuple(
            _task_score(chosen[name][task][0], steps[name][k], objective)
            for k, task in enumerate(tasks)
            for name in chosen
        ),
        ratios=ratios,
    )


def setting_of(unroll: UnrollResult) -> Setting:
    return Setting(unroll.rate, unroll.theta_sha256, unroll.decay, unroll.schedule)


def chosen_of(own: Sequence[UnrollResult], objective: str) -> Chosen:
    """An optimizer's unrolls by task and initialisation, at the setting of the least final loss from the first one."""
    chosen: Chosen = {}
    for task in sorted({u.task for u in own}):
        here = [u for u in own if u.task == task]
        first = [u for u in here if u.initialisation == 0]
        if first:
            best = setting_of(min(first, key=lambda u: u.final(objective)))
            chosen[task] = {u.initialisation: u for u in here if setting_of(u) == best}
    return chosen


def target(unroll: UnrollResult, percent: int) -> float:
    """The trailing mean loss of the objective after a percentage of the steps."""
    steps, means = unroll.trailing()
    last = int(np.searchsorted(steps, percent / 100 * unroll.steps[-1], side="right")) - 1
    return float(means[max(last, 0)])


def steps_to(unroll: UnrollResult, goal: float) -> float:
    """The first step after which the trailing mean loss of the objective is at or below a goal; infinite: none is."""
    steps, means = unroll.trailing()
    reached = np.flatnonzero(means <= goal)
    return max(1.0, float(steps[reached[0]])) if len(reached) else np.inf


def speedup(learned: UnrollResult, baseline: UnrollResult, percent: int) -> float:
    """Steps of a baseline to its own target over those of the learned optimizer; 0 if that never reaches it."""
    goal = target(baseline, percent)
    return steps_to(baseline, goal) / steps_to(learned, goal)


def _versus(learned: Chosen, baseline: Chosen, tasks: Sequence[int], objective: str, percent: int) -> Versus:
    steps, seconds, times = [], [], []
    for task in tasks:
        pairs = [(u, baseline[task][start]) for start, u in learned[task].items() if start in baseline[task]]
        ratios = np.array([speedup(one, other, percent) for one, other in pairs])
        paces = np.array([other.seconds_per_step / one.seconds_per_step for one, other in pairs])
        steps.append(mean_of_logs(ratios))
        seconds.append(mean_of_logs(ratios * paces))
        goal = target(baseline[task][0], percent)
        times.append([steps_to(u, goal) * u.seconds_per_step for u in (learned[task][0], baseline[task][0])])
    own, other = (np.array([one[task][0].final(objective) for task in tasks]) for one in (learned, baseline))
    by_name = dict(zip((LEARNED, "baseline"), np.array(times).T))
    return Versus(
        target=percent,
        steps=np.array(steps),
        seconds=np.array(seconds),
        speedup_steps=estimate(np.array(steps)),
        speedup_seconds=estimate(np.array(seconds)),
        final_ratio=final_ratio(own, other),
        wins=int((own < other).sum()),
        algoperf_score=algoperf_score(performance_ratios(by_name)[LEARNED]),
    )


def final_ratio(own: np.ndarray, other: np.ndarray) -> float | None:
    """Mean of final losses [tasks] over that of others; None where one is not finite."""
    finite = own.mean() < np.inf and 0 < other.mean() < np.inf
    return float(own.mean() / other.mean()) if finite else None


def _side(name: str, own: Sequence[UnrollResult], final: float, ratios: np.ndarray) -> Side:
    """Args: own: the unrolls of an optimizer from the first initialisation."""
    ran: dict[Setting, set[int]] = {}
    for u in own:
        ran.setdefault(setting_of(u), set()).add(u.task)
    most = max(map(len, ran.values()))
    rejected = [setting.text for setting, done in ran.items() if len(done) < most]
    return Side(
        optimizer=name,
        trials=len(ran),
        rejected=tuple(rejected),
        core_seconds=float(sum(u.steps[-1] * u.seconds_per_step for u in own)),
        seconds_per_step=float(np.median([u.seconds_per_step for u in own])),
        final=final,
        score=algoperf_score(ratios),
    )


def _task_score(unroll: UnrollResult, steps: float, objective: str) -> TaskScore:
    return TaskScore(
        task=unroll.task,
        optimizer=unroll.optimizer,
        setting=setting_of(unroll),
        final=BySplit(*(unroll.final(split) for split in BySplit._fields)),
        mean=unroll.mean(objective),
        steps=steps,
        seconds=steps * unroll.seconds_per_step,
    )


def pay_back(outer_training: float | None, learned: Side, tuned: Side, tasks: int, steps: int) -> float | None:
    """Trainings after which outer-training has cost less than tuning a baseline for each; None: never, or unknown.

    Args:
      outer_training: its cost in core seconds; None: not known.
      tuned: the baseline with the cost of all its trials on all tasks.
      steps: of a training with the learned optimizer.
    """
    saved = saving(learned, tuned, tasks, steps)
    return None if outer_training is None or saved <= 0 else float(np.ceil(outer_training / saved))


def saving(learned: Side, tuned: Side, tasks: int, steps: int) -> float:
    """Core seconds that one training with the learned optimizer saves against tuning a baseline for it."""
    return tuned.core_seconds / tasks - steps * learned.seconds_per_step
