"""Readers of history.jsonl, the records of a run's outer updates. They see one lineage, and skip torn lines.

No JAX and no optax: the operations commands read histories too.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from common import jsonlines
from common.update_record import UpdateRecord
from learner.lineage import Position, contains, lineage

FILE = "history.jsonl"


def read_history(run: Path) -> list[UpdateRecord]:
    """All records of the run's lineage, by version. What an older epoch wrote past its child's parent is left out."""
    return on_lineage(records(jsonlines.read(run / FILE)), lineage(run / "epochs"))


def read_newest(run: Path, count: int) -> list[UpdateRecord]:
    """The last `count` records of `read_history`, read from the end of the file: its length costs nothing."""
    chain = lineage(run / "epochs")
    return jsonlines.read_last(run / FILE, count, lambda lines: on_lineage(records(lines), chain))


class HistoryReader:
    """`read_history` again and again, for a dashboard: each call parses only what was appended since the last one."""

    def __init__(self, run: Path) -> None:
        self._epochs = run / "epochs"
        self._tail = jsonlines.Tail(run / FILE)
        self._known: list[UpdateRecord] = []  # of every epoch: a later one may end the lineage of an earlier one

    def read(self) -> list[UpdateRecord]:
        lines = self._tail.read()
        if self._tail.restarted:
            self._known.clear()
        self._known += records(lines)
        return on_lineage(self._known, lineage(self._epochs))


def records(lines: Iterable[jsonlines.Record]) -> Iterator[UpdateRecord]:
    """The records of those lines that hold one."""
    for line in lines:
        try:
            yield UpdateRecord.from_json(line)
        except ValueError:
            continue


def on_lineage(found: Iterable[UpdateRecord], chain: Mapping[int, int]) -> list[UpdateRecord]:
    """Those records that lie on the lineage `chain`, by version."""
    by_version = {r.version: r for r in found if contains(chain, Position(r.epoch, r.version))}
    return [by_version[version] for version in sorted(by_version)]
