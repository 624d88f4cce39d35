"""`outertrain reproduce`: the figures of the paper, stage by stage; a figure that was cut off goes on where it was.

DIR/fig3.jsonl (a row per item), DIR/fig3.png, DIR/fig3.json (the claim, whether it holds, and the sentence).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.jobs import job
from cluster.jobs.job import Pool, Results, Row
from workers.figures import catalogue
from workers.figures.figure import placed

Progress = Callable[[str, int, int], None]  # (figure, items done, items in all); an exception it raises ends the job


def reproduce(
    names: Sequence[str], scale: str, folder: Path, pool: Pool, progress: Progress, data: str | None = None
) -> None:
    """Computes what is missing of the figures and of those that they need.

    Args:
      data: the class store of a scale that needs one, where every process finds it.
    """
    complete: dict[str, list[Row]] = {}
    for name in catalogue.order(names):
        before = [row for other in catalogue.needs(name) for row in complete[other]]
        rows = rows_of(name, scale, before, Results(folder / f"{name}.jsonl"), pool, progress, data)
        complete[name] = rows
        conclude(name, [*before, *rows], folder)


def rows_of(
    name: str, scale: str, before: list[Row], results: Results, pool: Pool, progress: Progress, data: str | None = None
) -> list[Row]:
    """The rows of a complete figure, stage by stage.

    What the file holds of other settings or another scale is left alone.
    """
    rows: list[Row] = []
    while True:
        items = catalogue.items(name, scale, [*before, *rows])
        if data is not None:
            items = [placed(item, data) for item in items]
        if [item["item"] for item in items] == [row["item"] for row in rows]:
            return rows
        job.run(items, results, pool, lambda done, total: progress(name, done, total))
        rows = [results.rows[item["item"]] for item in items]


def conclude(name: str, rows: Sequence[Row], folder: Path) -> dict[str, Any]:
    """Picture and verdict, from the rows of a complete figure."""
    verdict = catalogue.verdict(name, rows)
    record = {"figure": name, "claim": catalogue.claim(name), **verdict._asdict()}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    catalogue.draw(name, rows).savefig(folder / f"{name}.png")
    return record
