"""Scores of several learned optimizers on the same tasks: in one pool, and as one optimizer that was trained several times."""

from collections.abc import Mapping, Sequence

import numpy as np

from workers.evaluation.scores import LEARNED, Scores, Side, Versus, final_ratio
from workers.evaluation.statistics import algoperf_score, estimate, mean_of_logs, performance_ratios


def in_one_pool(each: Mapping[str, Scores]) -> dict[str, Scores]:
    """The scores of several learned optimizers, with AlgoPerf's score among all of them and their baselines.

    Args:
      each: by name; left as they are unless all are of the same tasks and baselines.
    """
    if len({(one.tasks, tuple(one.by_baseline)) for one in each.values()}) != 1:
        return dict(each)
    first = next(iter(each.values()))
    own = {f"{LEARNED} {name}": _seconds(one, LEARNED) for name, one in each.items()}
    ratios = performance_ratios({**own, **{name: _seconds(first, name) for name in first.by_baseline}})

    def among_all(name: str, one: Scores) -> Scores:
        here = {side.optimizer: ratios[side.optimizer] for side in one.sides[1:]}
        here = {LEARNED: ratios[f"{LEARNED} {name}"], **here}
        sides = tuple(side._replace(score=algoperf_score(here[side.optimizer])) for side in one.sides)
        return one._replace(best=one.best._replace(algoperf_score=sides[0].score), sides=sides, ratios=here)

    return {name: among_all(name, one) for name, one in each.items()}


def _seconds(scores: Scores, name: str) -> np.ndarray:
    """[tasks] seconds of an optimizer to the target of each task."""
    return np.array([one.seconds for one in scores.per_task if one.optimizer == name])


def over_seeds(each: Sequence[Scores], objective: str) -> Scores | None:
    """The scores of an optimizer that was outer-trained with several seeds: means of logs over the seeds of each task.

    Intervals are over tasks, so that more seeds steady the numbers and do not narrow the intervals by their count.

    Args:
      each: scores of each seed.
      objective: whose final losses are compared.

    Returns: None unless all are of the same tasks and baselines.
    """
    if len({(one.tasks, tuple(one.by_baseline)) for one in each}) != 1:
        return None
    first = each[0]
    learned = np.mean([_finals(one, LEARNED, objective) for one in each], axis=0)
    finals = {name: _finals(first, name, objective) for name in first.by_baseline}
    by_train = [_finals(first, name, "train") for name in finals]
    rivals = np.choose(np.argmin(by_train, axis=0), list(finals.values()))
    return Scores(
        tasks=first.tasks,
        steps=first.steps,
        best=_mean([one.best for one in each], learned, rivals),
        by_baseline={
            name: tuple(
                _mean([one.by_baseline[name][k] for one in each], learned, finals[name]) for k in range(len(targets))
            )
            for name, targets in first.by_baseline.items()
        },
        sides=(_mean_side([one.side(LEARNED) for one in each]), *first.sides[1:]),
        per_task=(),
        ratios={},
    )


def _finals(scores: Scores, name: str, split: str) -> np.ndarray:
    return np.array([one.final.of(split) for one in scores.per_task if one.optimizer == name])


def _mean(each: Sequence[Versus], learned: np.ndarray, baseline: np.ndarray) -> Versus:
    """Args: learned, baseline: [tasks] final losses."""
    steps, seconds = (
        np.array([mean_of_logs(of_task) for of_task in np.transpose([getattr(one, unit) for one in each])])
        for unit in ("steps", "seconds")
    )
    return Versus(
        target=each[0].target,
        steps=steps,
        seconds=seconds,
        speedup_steps=estimate(steps),
        speedup_seconds=estimate(seconds),
        final_ratio=final_ratio(learned, baseline),
        wins=int((learned < baseline).sum()),
        algoperf_score=float(np.mean([one.algoperf_score for one in each])),
    )


def _mean_side(each: Sequence[Side]) -> Side:
    """No seed was chosen among the others, so their number is no number of trials."""
    return each[0]._replace(
        core_seconds=float(np.mean([one.core_seconds for one in each])),
        seconds_per_step=float(np.median([one.seconds_per_step for one in each])),
        final=float(np.mean([one.final for one in each])),
        score=float(np.mean([one.score for one in each])),
    )
