"""The comparison of a run as text for a terminal."""

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table

from cluster.report.score_table import Scored, named, score_notes, score_rows, score_title
from cluster.runs.directory import shell_command
from workers.evaluation.comparison import LEARNED, Comparison, Evaluation, wins


def final_table(comparison: Comparison | None, run: str, cost: float | None = None) -> str:
    """The learned optimizer against every baseline on unseen tasks, or the command that compares them.

    Args:
      cost: of the outer-training, core seconds; None: unknown.
    """
    if comparison is None:
        return f"not evaluated yet: {shell_command('evaluate', run)}"
    shown = named(comparison)
    return table(comparison) + ("\n\n" + score_table(shown, cost) if shown else "")


def several_table(evaluation: Evaluation) -> str:
    """Several learned optimizers and the baselines, on the same tasks."""
    first = evaluation.others[0][1]
    rows = [("optimizer", f"mean {first.objective} loss")]
    rows += [(name, f"{one.learned.mean():.4f}") for name, one in evaluation.others]
    rows += [(one.optimizer, f"{one.per_task.mean():.4f}") for one in first.baselines]
    head = f"mean loss over the steps of {len(first.tasks)} unseen tasks, baselines at the best setting of each task"
    shown = named(None, evaluation.others, evaluation.pooled)
    return "\n".join([head, *aligned(rows)]) + ("\n\n" + score_table(shown) if shown else "")


def families_table(families: Sequence[tuple[str, Comparison]]) -> str:
    """A line per family of a mixture: the learned optimizer and the first baseline at the best rate of each task."""
    return "\n".join(
        ["on unseen tasks of each family, baselines at the best setting of each task", *aligned(family_rows(families))]
    )


def family_rows(families: Sequence[tuple[str, Comparison]]) -> list[tuple[str, ...]]:
    """The cells of that table, with a head."""
    rows: list[tuple[str, ...]] = [
        ("family", "tasks", "learned", "baseline", "its loss", "ratio", "wins", "speedup, steps", "speedup, seconds")
    ]
    for name, one in families:
        first, scores = one.baselines[0], one.scores
        speedups = () if scores is None else (scores.best.speedup_steps.value, scores.best.speedup_seconds.value)
        rows.append(
            (
                name,
                str(len(one.tasks)),
                f"{one.learned.mean():.4f}",
                first.optimizer,
                f"{first.per_task.mean():.4f}",
                f"{one.learned.mean() / first.per_task.mean():.3f}",
                f"{wins(one.learned, first.per_task)}/{len(one.tasks)}",
                *(f"{speedup:.2f}" for speedup in speedups or (float("nan"),) * 2),
            )
        )
    return rows


def score_table(shown: Sequence[Scored], cost: float | None = None) -> str:
    """A line per optimizer: what it was given, its final loss, and the speedups of the learned ones."""
    return "\n".join([score_title(shown), *aligned(score_rows(shown)), *score_notes(shown, cost)])


def table(comparison: Comparison) -> str:
    """A line per optimizer and way of tuning it: mean loss over tasks and steps, ratio and wins of the learned one."""
    learned = comparison.learned
    rows = [("optimizer", "learning rate", "loss", "ratio", "wins"), (LEARNED, "", f"{learned.mean():.4f}", "", "")]
    for baseline in comparison.baselines:
        ways = [("best rate of each task", baseline.per_task), ("best single rate", baseline.single)]
        if baseline.fine is not None:
            ways.insert(1, ("the same, grid twice as fine", baseline.fine))
        for way, losses in ways:
            ratio, won = f"{learned.mean() / losses.mean():.3f}", f"{wins(learned, losses)}/{len(losses)}"
            rows.append((baseline.optimizer, way, f"{losses.mean():.4f}", ratio, won))
    head = f"mean {comparison.objective} loss over {len(comparison.tasks)} unseen tasks"
    return "\n".join([head, *aligned(rows)])


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with the cells of each column under one another, two spaces apart."""
    grid = Table.grid(padding=(0, 2))
    for row in rows:
        grid.add_row(*row)
    widest = sum(max(map(len, column)) + 2 for column in zip(*rows))
    console = Console(file=StringIO(), width=widest, markup=False, emoji=False, highlight=False, color_system=None)
    with console.capture() as text:
        console.print(grid)
    return [line.rstrip() for line in text.get().splitlines()]
