"""Jobs: many independent items, such as the unrolls of an evaluation, computed by whichever workers there are.

An item has a name, and its result is one JSON line that carries this name. Names are idempotent: an item with a result
is not computed again, so a job that was cut off goes on where it stopped, and losing a worker costs its item's time.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from common import jsonlines
from common.errors import UserError

Item = dict[str, Any]  # JSON-able; "item" is its name
Row = dict[str, Any]  # JSON-able; "item" is the name of what it is the result of

ATTEMPTS = 3  # an item that took this many workers with it is not tried again


class Results:
    """The rows of a JSON-lines file, which has one writer."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, Row] = {row["item"]: row for row in jsonlines.read(path) if "item" in row}
        self._writer = jsonlines.Writer(path)
        self._writer.flush()  # a file that cannot be written is noticed before the first result

    def add(self, row: Row) -> None:
        """Appends a row; the first row of a name counts."""
        if row["item"] in self.rows:
            return
        self.rows[row["item"]] = row
        self._writer.add(row)
        self._writer.flush()

    def missing(self, items: Iterable[Item]) -> list[Item]:
        return [item for item in items if item["item"] not in self.rows]


class Done(NamedTuple):
    item: Item
    row: Row | None  # None: its worker was lost, or left
    reason: str = ""  # why it was lost; "": it left, and the item was not begun


class Pool(Protocol):
    """Those who compute items."""

    def room(self) -> int:
        """How many items could be handed over now."""
        ...

    def submit(self, item: Item) -> None: ...

    def collect(self) -> list[Done]:
        """What has ended. Waits a moment when nothing has."""
        ...


class Job:
    """Items on their way to their rows. More may be added while it goes on."""

    def __init__(self, items: Iterable[Item], results: Results, pool: Pool):
        self.done = self.total = 0
        self._results, self._pool = results, pool
        self._waiting: deque[Item] = deque()
        self._attempts: Counter[str] = Counter()
        self.add(items)

    def add(self, items: Iterable[Item]) -> None:
        items = list(items)
        missing = self._results.missing(items)
        self._waiting += missing
        self.total += len(items)
        self.done += len(items) - len(missing)

    @property
    def finished(self) -> bool:
        return self.done == self.total

    def step(self) -> None:
        """Hands over what there is room for and takes in what has ended. Raises UserError when an item fails for good."""
        while self._waiting and self._pool.room() > 0:
            self._pool.submit(self._waiting.popleft())
        for ended in self._pool.collect():
            self._take_in(ended)

    def _take_in(self, ended: Done) -> None:
        item, row, reason = ended
        if row is not None:
            self._results.add(row)
            self.done += 1
            return
        self._attempts[item["item"]] += reason != ""
        if self._attempts[item["item"]] == ATTEMPTS:
            raise UserError(f"{item['item']} failed {ATTEMPTS} times, the last time so: {reason}")
        self._waiting.append(item)


def run(items: Iterable[Item], results: Results, pool: Pool, progress: Callable[[int, int], None]) -> None:
    """Computes all items that have no result yet.

    Args:
      progress: called with (items done, items in all) before each step. An exception that it raises ends the job;
        the rows so far are kept.

    Raises:
      UserError: an item failed again and again.
    """
    job = Job(items, results, pool)
    progress(job.done, job.total)
    while not job.finished:
        job.step()
        progress(job.done, job.total)


class InProcessPool:
    """Computes each item in this process, when it is submitted."""

    def __init__(self, perform: Callable[[Item], Row]):
        self._perform = perform
        self._done: list[Done] = []

    def room(self) -> int:
        return 0 if self._done else 1

    def submit(self, item: Item) -> None:
        self._done.append(Done(item, self._perform(item)))

    def collect(self) -> list[Done]:
        done, self._done = self._done, []
        return done
