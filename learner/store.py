"""The learner's part of a run directory: epochs, checkpoints, history and, if configured, the journal.

While the storage fails, training continues from memory: failures are counted, reported, and retried with the next
update.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import jsonlines
from common.config import Config
from common.update_record import UpdateRecord
from learner import checkpoints, history, lineage
from learner.hooks import Hooks
from learner.journal import Journal
from learner.lineage import Position

log = logging.getLogger(__name__)


class Durable(NamedTuple):
    """The newest version on disk."""

    version: int
    time: float  # when it was written, unix seconds
    failures: int = 0  # checkpoints not written since the start
    error: str = ""  # the reason of the last failure; empty once one succeeded


class Store:
    """One epoch of a run on disk. Only the learner that claimed the epoch writes through it.

    `ancestors` are the earlier epochs that it descends from, with the last version of each that counts. `durable` is
    valid after `begin`.
    """

    def __init__(self, run: Path, epoch: int, config: Config, hooks: Hooks) -> None:
        self.epoch = epoch
        self._chain = lineage.lineage(run / "epochs", epoch)
        self.ancestors = {older: last for older, last in self._chain.items() if older < epoch}
        self._epochs, self._folder = run / "epochs", run / "checkpoints"
        self._keep, self._every = config.outer.keep_checkpoints, config.outer.keep_every
        self._hooks = hooks
        self._history = jsonlines.Writer(run / history.FILE)
        self._journal = Journal(run / "journal", epoch) if config.outer.journal else None
        self.durable = Durable(-1, hooks.clock())

    def superseded(self) -> bool:
        """Whether a later learner has taken over. Storage that does not answer is no proof of one."""
        try:
            return lineage.superseded(self._epochs, self.epoch)
        except OSError:
            return False

    def begin(self, config: Config, segments: np.ndarray, record: dict[str, Any]) -> None:
        """Writes the epoch's first checkpoint, so that it depends on no older file. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        checkpoints.clean(self._folder, self.epoch)
        if self._journal is not None:
            checkpoints.clean(self._journal.folder, self.epoch)
            self._journal.start(config, segments, record)
        self._checkpoint(record)
        self.durable = Durable(record["version"], self._hooks.clock())

    def add(self, update: UpdateRecord, payloads: Sequence[bytes]) -> None:
        """Queues an update's record and its payloads, in the order of their merge; `save` writes them."""
        self._history.add(update.to_json())
        if self._journal is not None:
            self._journal.add(update.version, payloads)

    def save(self, record: dict[str, Any]) -> None:
        """Makes everything queued durable, the checkpoint of `record` last, or counts and reports a failure.

        What journal and history hold past the newest checkpoint is ignored by their readers.
        """
        began, version, observer = time.perf_counter(), record["version"], self._hooks.observer
        try:
            if self._journal is not None:
                self._journal.flush()
            self._history.flush()
            size = self._checkpoint(record)
        except OSError as error:
            self.durable = self.durable._replace(failures=self.durable.failures + 1, error=str(error))
            observer.checkpoint_failed()
            log.error(
                "cannot write the checkpoint of version %d (%s); version %d is the last durable one: free disk space "
                "or repair the storage. Training continues",
                version,
                error,
                self.durable.version,
            )
            return
        self.durable = Durable(version, self._hooks.clock(), self.durable.failures)
        observer.checkpoint_written(version, size, time.perf_counter() - began, self.durable.time)

    def _checkpoint(self, record: dict[str, Any]) -> int:
        """Returns the bytes written. Raises OSError."""
        position = Position(self.epoch, record["version"])
        size = checkpoints.save(self._folder, position, record, self._hooks.failpoint)
        checkpoints.retain(self._folder, self._chain, self.epoch, self._keep, self._every)
        return size
