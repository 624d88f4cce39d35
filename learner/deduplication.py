"""Deduplication: the last sample accepted from each worker, so that a retry after a lost reply counts once."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

LIMIT = 16384  # workers remembered; one learner serves up to about 10,000


class Deduplicator:
    """Last accepted sequence number of each worker, in bounded memory.

    At the limit, the worker that has been silent longest is evicted, and the version at which its last sample was
    accepted becomes the horizon: a sample of an unknown worker that was computed with this version or an older one may
    be a retry. So no sample is ever applied twice, however many workers come and go.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._last: OrderedDict[str, tuple[int, int]] = OrderedDict()  # uid -> sequence, version when accepted
        self._horizon = -1

    def __len__(self) -> int:
        return len(self._last)

    def is_duplicate(self, worker: str, sequence: int) -> bool:
        """Whether this sample, or a later one of the worker, was accepted."""
        return worker in self._last and sequence <= self._last[worker][0]

    def may_be_duplicate(self, worker: str, version: int) -> bool:
        """Whether a sample computed with `version` may have been accepted from a worker that has been evicted."""
        return worker not in self._last and version <= self._horizon

    def accept(self, worker: str, sequence: int, version: int) -> None:
        """Remembers a sample that is accepted now, at the learner's `version`."""
        self._last[worker] = (sequence, version)
        self._last.move_to_end(worker)
        if len(self._last) > self._limit:
            _, (_, oldest) = self._last.popitem(last=False)
            self._horizon = max(self._horizon, oldest)

    def dump(self) -> list[Any]:
        """Its contents, for a checkpoint."""
        return [self._horizon, [[worker, *entry] for worker, entry in self._last.items()]]

    @classmethod
    def load(cls, dumped: Iterable[Any], limit: int = LIMIT) -> "Deduplicator":
        loaded = cls(limit)
        loaded._horizon, entries = dumped
        loaded._last.update((worker, (sequence, version)) for worker, sequence, version in entries)
        return loaded
