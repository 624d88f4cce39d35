"""The scores of a comparison as rows of text, for the terminal and for the page."""

from collections.abc import Sequence
from typing import NamedTuple

from workers.evaluation.comparison import LEARNED, Comparison
from workers.evaluation.scores import Scores, Side, Versus, pay_back, saving
from workers.evaluation.statistics import Estimate

TUNED_LIKE = "adamw"  # the baseline whose tuning outer-training replaces; the first one where it was not run


class Scored(NamedTuple):
    """A learned optimizer and its scores."""

    name: str
    objective: str
    scores: Scores


def named(
    comparison: Comparison | None, others: Sequence[tuple[str, Comparison]] = (), pooled: Scores | None = None
) -> list[Scored]:
    """The comparisons that have scores; a single one is shown as "learned".

    Args:
      pooled: the others as a single one, which is a line of its own.
    """
    listed = list(others) or ([(LEARNED, comparison)] if comparison is not None else [])
    shown = [Scored(name, one.objective, one.scores) for name, one in listed if one.scores is not None]
    mean = [] if pooled is None else [Scored(f"mean of these {len(shown)}", shown[0].objective, pooled)]
    return shown + mean


def score_title(shown: Sequence[Scored]) -> str:
    first = shown[0]
    return f"to the final {first.objective} loss of the best baseline of each of {len(first.scores.tasks)} tasks"


def score_rows(shown: Sequence[Scored]) -> list[tuple[str, ...]]:
    """A line per optimizer. The speedups in the line of a baseline are those of the one learned optimizer over it."""
    head = ("optimizer", "trials", "core s", "final loss", "score", "speedup, steps", "speedup, seconds", "wins")
    rows: list[tuple[str, ...]] = [head]
    for one in shown:
        rows.append((one.name, *_side(one.scores.side(LEARNED)), *_versus(one.scores.best)))
    scores = shown[0].scores
    for name, (whole, *_) in scores.by_baseline.items():
        versus = _versus(whole) if len(shown) == 1 else ("", "", "")
        rows.append((name, *_side(scores.side(name)), *versus))
    return rows


def _side(side: Side) -> tuple[str, ...]:
    return str(side.trials), f"{side.core_seconds:.3g}", f"{side.final:.4f}", f"{side.score:.2f}"


def _versus(versus: Versus) -> tuple[str, ...]:
    return _estimate(versus.speedup_steps), _estimate(versus.speedup_seconds), f"{versus.wins}/{len(versus.steps)}"


def _estimate(estimate: Estimate) -> str:
    interval = "" if estimate.low is None else f" ({estimate.low:.2f} to {estimate.high:.2f})"
    return f"{estimate.value:.2f}{interval}"


def score_notes(shown: Sequence[Scored], cost: float | None) -> list[str]:
    """What was rejected, and when outer-training pays for itself.

    Args:
      cost: of the outer-training, in core seconds; None: unknown, or several learned optimizers.
    """
    scores = shown[0].scores
    rejected = [f"{len(side.rejected)} of {side.trials} of {side.optimizer}" for side in scores.sides if side.rejected]
    notes = [f"settings rejected early: {', '.join(rejected)}"] if rejected else []
    return notes + ([pay_back_sentence(scores, cost)] if len(shown) == 1 else [])


def pay_back_sentence(scores: Scores, cost: float | None) -> str:
    """When outer-training has paid for itself against tuning AdamW, or the first baseline, for every training."""
    learned = scores.side(LEARNED)
    name = TUNED_LIKE if TUNED_LIKE in scores.by_baseline else next(iter(scores.by_baseline))
    tuned, tasks = scores.side(name), len(scores.tasks)
    saved = saving(learned, tuned, tasks, scores.steps)
    trainings = pay_back(cost, learned, tuned, tasks, scores.steps)
    known = (
        "its outer-training cost is not recorded here"
        if cost is None
        else f"outer-training cost {cost:.0f} core seconds"
    )
    what = f"{saved:.3g} core seconds against tuning {name} with {tuned.trials} trials"
    if saved <= 0:
        return f"{known}; a training with the learned optimizer saves nothing ({what}): it does not pay for itself"
    end = "" if trainings is None else f": pays for itself after {trainings:.0f} trainings"
    return f"{known}; a training with the learned optimizer saves {what}{end}"
