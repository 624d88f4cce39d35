"""The learner's part of a run directory: epochs, checkpoints, history and, if asked, the journal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import jsonlines
from common.config import Config
from common.update_record import UpdateRecord
from learner import checkpoints, history, lineage
from learner.failpoints import Reached
from learner.journal import Journal
from learner.lineage import Position


class Store:
    """One epoch of a run on disk. Only the learner that claimed the epoch writes through it.

    `ancestors` are the earlier epochs that it descends from, with the last version of each that counts.
    """

    def __init__(self, run: Path, number: int, config: Config, reached: Reached) -> None:
        self.epoch = number
        self._chain = lineage.lineage(run / "epochs", number)
        self.ancestors = {older: last for older, last in self._chain.items() if older < number}
        self._epochs, self._folder = run / "epochs", run / "checkpoints"
        self._keep, self._every = config.outer.keep_checkpoints, config.outer.keep_every
        self._reached = reached
        self._history = jsonlines.Writer(run / history.FILE)
        self._journal = Journal(run / "journal", number) if config.outer.journal else None

    def superseded(self) -> bool:
        """Whether a later learner has taken over; storage that does not answer is no proof of one."""
        try:
            return lineage.superseded(self._epochs, self.epoch)
        except OSError:
            return False

    def begin(self, config: Config, segments: np.ndarray, record: dict[str, Any]) -> int:
        """Makes the epoch's first checkpoint, so that it depends on no older file. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        checkpoints.clean(self._folder, self.epoch)
        if self._journal is not None:
            self._journal.start(config, segments, record)
        return self._checkpoint(record)

    def add(self, made: UpdateRecord, payloads: Sequence[bytes]) -> None:
        """Queues an update's record and its payloads, in the order of their merge; `save` writes them."""
        self._history.add(made.to_json())
        if self._journal is not None:
            self._journal.add(made.version, payloads)

    def save(self, record: dict[str, Any]) -> int:
        """Makes all that was noted durable, the checkpoint last, and returns the checkpoint's size.

        What journal and history hold past the checkpoint is ignored by their readers.

        Raises:
          OSError: the version of `record` is not durable; what was noted is written next time.
        """
        if self._journal is not None:
            self._journal.flush()
        self._history.flush()
        return self._checkpoint(record)

    def _checkpoint(self, record: dict[str, Any]) -> int:
        position = Position(self.epoch, record["version"])
        size = checkpoints.save(self._folder, position, record, self._reached)
        checkpoints.retain(self._folder, self._chain, self.epoch, self._keep, self._every)
        return size
