"""The last sample taken from each worker, so that a retry after a lost reply counts once. Bounded memory."""

from collections import OrderedDict
from collections.abc import Iterable

LIMIT = 16384  # workers remembered; beyond the 10,000 that one learner serves


class Ledger:
    """Last sequence number of each worker.

    When the limit is reached the worker that was silent longest is forgotten, and with it goes the version at which
    its last sample was taken: an unknown worker whose sample is not newer than that is `forgotten`, because it might
    be a retry. So no sample is ever taken twice, however many workers come and go.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._last: OrderedDict[str, tuple[int, int]] = OrderedDict()  # uid -> sequence, version when it was taken
        self._horizon = -1

    def __len__(self) -> int:
        return len(self._last)

    def has(self, worker: str, sequence: int) -> bool:
        """Whether this sample, or a later one of the worker, was taken."""
        return worker in self._last and sequence <= self._last[worker][0]

    def forgotten(self, worker: str, version: int) -> bool:
        """Whether a sample computed with `version` may have been taken from a worker that is not remembered."""
        return worker not in self._last and version <= self._horizon

    def take(self, worker: str, sequence: int, version: int) -> None:
        """Notes a sample that is taken now, at the learner's `version`."""
        self._last[worker] = (sequence, version)
        self._last.move_to_end(worker)
        if len(self._last) > self._limit:
            _, (_, oldest) = self._last.popitem(last=False)
            self._horizon = max(self._horizon, oldest)

    def dump(self) -> list:
        return [self._horizon, [[worker, *entry] for worker, entry in self._last.items()]]

    @classmethod
    def load(cls, dumped: Iterable, limit: int = LIMIT) -> "Ledger":
        ledger = cls(limit)
        ledger._horizon, entries = dumped
        ledger._last.update((worker, (sequence, version)) for worker, sequence, version in entries)
        return ledger
