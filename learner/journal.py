"""The journal: every applied payload, so that the same code can replay a run and get the same theta, bit for bit.

`journal/e<epoch>-start.jnl` holds the configuration and the state that an epoch starts from,
`journal/e<epoch>-v<version>.jnl` the payloads of the update that made this version, in the order of their merge. Costs
about 4.5 MB per batch of 128, and nothing is ever deleted: for tests and audits, not for every run.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import checkpoint, configfile
from common.config import Config
from common.messages import unpack_sample
from learner import state as states
from learner.lineage import NO_END, Position, lineage
from learner.merge import Rule
from learner.outer_optimizer import OuterOptimizer

_WAITING_BYTES = 64 * 2**20  # of payloads queued while the disk is full; beyond it the oldest entries are lost


class Journal:
    """Writes entries in order. After a failed write they stay queued, and are written first when there is space again."""

    def __init__(self, folder: Path, epoch: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._epoch = folder, epoch
        self._waiting: deque[tuple[Path, dict[str, Any]]] = deque()
        self._bytes = 0  # of the queued payloads

    def start(self, config: Config, segments: np.ndarray, state: dict[str, Any]) -> None:
        """Raises OSError."""
        record = {"config": configfile.dump(config), "segments": np.asarray(segments, np.int64), "state": state}
        checkpoint.save(_start(self.folder, self._epoch), record)

    def add(self, version: int, payloads: Sequence[bytes]) -> None:
        """Queues an update for the next `flush`."""
        entry = {"epoch": self._epoch, "version": version, "payloads": list(payloads)}
        self._waiting.append((_entry(self.folder, Position(self._epoch, version)), entry))
        self._bytes += _size(entry)
        while self._bytes > _WAITING_BYTES and len(self._waiting) > 1:
            self._forget()

    def flush(self) -> None:
        """Writes what is queued. Raises OSError; the rest then stays queued."""
        while self._waiting:
            checkpoint.save(*self._waiting[0])
            self._forget()

    def _forget(self) -> None:
        self._bytes -= _size(self._waiting.popleft()[1])


def _size(entry: dict[str, Any]) -> int:
    return sum(map(len, entry["payloads"]))


class Replay(NamedTuple):
    """The result of a replay."""

    state: states.State
    names: list[tuple[str, int]]  # of all applied samples, in order


class Inconsistent(Exception):
    """The journal is inconsistent: an epoch does not start from the theta that its parent ended with, or there is none."""


def replay(run: Path, until: int = NO_END) -> Replay:
    """Replays the journal of the run's lineage up to version `until`, or to its end.

    Raises:
      Inconsistent: the journal cannot explain the run.
      UserError: an entry is missing or corrupt.
    """
    folder, chain = run / "journal", lineage(run / "epochs")
    done: Replay | None = None
    for epoch in sorted(chain):
        if done is not None and done.state.version >= until:
            break
        if chain[epoch] == NO_END and not _start(folder, epoch).exists():
            break  # claimed, but never begun
        record = checkpoint.load(_start(folder, epoch))
        config = configfile.from_dict(configfile.parse(record["config"], "the journal's configuration"))
        incarnation = _Incarnation(config, record["segments"])
        state = incarnation.resume(record["state"])
        if done is not None and (state.version, state.theta.tobytes()) != (
            done.state.version,
            done.state.theta.tobytes(),
        ):
            raise Inconsistent(f"epoch {epoch} does not start where its parent ended (version {done.state.version})")
        before = [] if done is None else done.names
        done = incarnation.replay(folder, epoch, Replay(state, before), min(chain[epoch], until), chain[epoch])
    if done is None:
        raise Inconsistent(f"{run} has no journal")
    return done


class _Incarnation:
    """One epoch: its configuration and its updates."""

    def __init__(self, config: Config, segments: np.ndarray) -> None:
        self._config, self._optimizer = config, OuterOptimizer(config.outer)
        self._rule = Rule(config.estimator, segments)

    def resume(self, record: dict[str, Any]) -> states.State:
        return states.from_record(record, states.initial(self._config, record["theta"], self._optimizer))[0]

    def replay(self, folder: Path, epoch: int, done: Replay, last: int, end: int) -> Replay:
        """Up to version `last`; an epoch that has not ended (`end` is NO_END) may have fewer."""
        state, names = done
        while state.version < last:
            path = _entry(folder, Position(epoch, state.version + 1))
            if not path.exists() and end == NO_END:
                break
            samples = [unpack_sample(payload) for payload in checkpoint.load(path)["payloads"]]
            names.extend((s.worker, s.sequence) for s in samples)
            merged = states.merge_batch(state, samples, self._rule)
            state, _ = states.advance(state, merged, self._optimizer, states.inner_steps(samples))
        return Replay(state, names)


def _start(folder: Path, epoch: int) -> Path:
    return folder / f"e{epoch:04d}-start.jnl"


def _entry(folder: Path, position: Position) -> Path:
    return folder / f"e{position.epoch:04d}-v{position.version:07d}.jnl"
