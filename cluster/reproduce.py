"""`outertrain reproduce`: the figures of the paper, stage by stage; a figure that was cut off goes on where it was.

DIR/fig3.jsonl (a row per item), DIR/fig3.png, DIR/fig3.json (the claim, whether it holds, and the sentence).
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster import jobs
from cluster.comparison import read_lines
from cluster.jobs import Done, Item, Pool, Results, Row
from workers.figures import catalogue

Progress = Callable[[str, int, int], bool]  # (figure, items done, items in all) -> go on


def reproduce(names: Sequence[str], scale: str, folder: Path, pool: Pool, progress: Progress) -> bool:
    """Computes what is missing of the figures and of those that they need; False when `progress` stopped it."""
    return all(_reproduce(name, scale, folder, pool, progress) for name in catalogue.order(names))


def _reproduce(name: str, scale: str, folder: Path, pool: Pool, progress: Progress) -> bool:
    results = Results(folder / f"{name}.jsonl")
    before = [row for other in catalogue.needs(name) for row in read_lines(folder / f"{other}.jsonl")]
    while True:
        items = catalogue.items(name, scale, [*before, *results.rows.values()])
        if not results.missing(items):
            break
        if not jobs.run(items, results, pool, lambda done, total: progress(name, done, total)):
            return False
    conclude(name, [*before, *(results.rows[item["item"]] for item in items)], folder)
    return True


def conclude(name: str, rows: Sequence[Row], folder: Path) -> dict[str, Any]:
    """Picture and verdict, from the rows of a complete figure."""
    verdict = catalogue.verdict(name, rows)
    record = {"figure": name, "claim": catalogue.claim(name), **verdict._asdict()}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    catalogue.draw(name, rows).savefig(folder / f"{name}.png")
    return record


class LocalPool:
    """Processes on this machine, one core each."""

    def __init__(self, count: int):
        self._count = count
        self._executor = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_prepare)
        self._at_work: dict[Future[Row], Item] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def room(self) -> int:
        return self._count - len(self._at_work)

    def submit(self, item: Item) -> None:
        self._at_work[self._executor.submit(perform, item)] = item

    def collect(self) -> list[Done]:
        """An item that raises ends the command with its error: it would raise again."""
        ended, _ = wait(self._at_work, timeout=1.0, return_when=FIRST_COMPLETED)
        return [Done(self._at_work.pop(future), future.result()) for future in ended]


def _prepare() -> None:
    from common import runtime

    runtime.prepare()


def perform(item: Item) -> Row:
    """The row of one item of a figure."""
    from cluster.apprentice import train

    return catalogue.perform(item, train)
