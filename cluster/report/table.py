"""The final table of a run, as text for a terminal."""

from cluster.runs.directory import RunDirectory
from common.config import Config
from workers.evaluation.comparison import Comparison, compare, read_theta, read_unrolls


def final_table(run: RunDirectory, config: Config) -> str:
    """The learned optimizer against every baseline on the unseen tasks."""
    unrolls, theta = read_unrolls(run.path), read_theta(run.path)
    comparison = compare(unrolls, config.estimator.objective, config.evaluation, theta)
    return table(comparison) if comparison else "not evaluated yet: outertrain evaluate " + run.name


def table(comparison: Comparison) -> str:
    """A line per optimizer: its mean loss over tasks and steps, and how the learned one compares."""
    learned = comparison.learned
    head = f"mean {comparison.objective} loss over {len(comparison.tasks)} unseen tasks"
    rows = [("learned", "", f"{learned.mean():.4f}", "", "")]
    for baseline in comparison.baselines:
        ways = [("best rate of each task", baseline.per_task), ("best single rate", baseline.single)]
        if baseline.fine is not None:
            ways.insert(1, ("the same, grid twice as fine", baseline.fine))
        rows += [
            (
                baseline.optimizer,
                way,
                f"{losses.mean():.4f}",
                f"{learned.mean() / losses.mean():.3f}",
                f"{int((learned < losses).sum())}/{len(losses)}",
            )
            for way, losses in ways
        ]
    return "\n".join([head, *aligned([("optimizer", "learning rate", "loss", "ratio", "wins"), *rows])])


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
