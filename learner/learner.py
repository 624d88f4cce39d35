"""The learner: takes samples, steps when a batch is full, and answers with parameters. No Ray, no task, no network.

    exchange(sample or nothing, epoch and version known) -> verdict, parameters if newer, whether to stop

The exchange that fills a batch also updates. Everything it decides is in `learner.state` and `learner.staleness`;
here are the lock, the batch, and the order of events: merge, update, checkpoint, publish, reply.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from common import messages
from common.config import Config
from common.messages import GradientSample, Malformed, Parameters, Reply, Verdict
from learner import history, staleness
from learner import state as states
from learner.failpoints import Reached
from learner.ledger import Ledger
from learner.observer import Observer, Silent
from learner.outer import OuterOptimizer
from learner.store import Entry, Store

log = logging.getLogger(__name__)
Beside = Callable[[], dict[str, bytes]]


class Surroundings(NamedTuple):
    """What a learner is given besides its run: each can be replaced in a test."""

    observer: Observer = Silent()
    clock: Callable[[], float] = time.time
    beside: Beside = dict  # what the caller wants in each checkpoint next to the learner's own state
    reached: Reached = lambda point: None


DEFAULTS = Surroundings()


class Learner:
    """One life of the learner of one run. Threads may call `exchange` at the same time."""

    def __init__(
        self,
        config: Config,
        digest: str,
        theta: np.ndarray,
        segments: np.ndarray,
        store: Store,
        around: Surroundings = DEFAULTS,
    ) -> None:
        """Args:
        digest: of the run (common.config.digest).
        theta: [P] where outer-training starts.
        segments: [P] int, which tensor each coordinate belongs to.
        store: of an epoch that was claimed for this learner (`learner.start`).
        """
        self._config, self._digest, self._store, self._around = config, digest, store, around
        self._optimizer = OuterOptimizer(config.outer)
        self._rule = states.rule_of(config, segments)
        self._limits = staleness.limits(config, digest, len(theta))
        self._max_bytes = messages.max_bytes(len(theta))
        self._state = states.initial(config, theta, self._optimizer)
        self._ledger = Ledger()
        self._batch: list[tuple[GradientSample, bytes]] = []
        self._lock = threading.Lock()
        self._verdicts: Counter[str] = Counter()
        self._began = around.clock()
        self._durable = Durable(-1, self._began, 0, "")
        self._last: dict[str, Any] = {}
        self._draining = self._superseded = self._answered = False
        self._publish()

    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """The protocol (common/messages.py): judges the payload, and answers what the caller does not hold yet."""
        if self._answered:
            self._around.reached("after_reply")
        verdict = None if payload is None else self._judge(payload)
        current = self._published
        known = (epoch, version) == current[:2]
        reply = Reply(
            verdict=verdict,
            epoch=current.epoch,
            version=current.version,
            digest=self._digest,
            theta=None if known else current.theta,
            stop=self.stopping,
            probe_rate=self._probe_rate,
        )
        self._around.reached("before_reply")
        self._answered = True
        return messages.pack_reply(reply)

    def snapshot(self) -> dict[str, Any]:
        """The record of a checkpoint: from it another learner of this run goes on."""
        return {
            "epoch": self._store.epoch,
            "digest": self._digest,
            "theta": messages.encode_theta(self._state.theta),
            "state": states.to_record(self._state),
            "ledger": self._ledger.dump(),
            "beside": self._around.beside(),
        }

    def restore(self, record: Mapping[str, Any]) -> dict[str, bytes]:
        """Goes on from a `snapshot`, and returns what the caller kept beside it."""
        with self._lock:
            fresh = self._state
            self._state, fitted = states.from_record(record["state"], fresh)
            if not fitted:
                log.warning("outer.optimizer is another one than in the checkpoint: its state starts afresh")
            self._ledger = Ledger.load(record["ledger"])
            self._batch.clear()
            self._publish()
        return dict(record["beside"])

    def persist(self) -> None:
        """Makes the present state durable if it is not. Raises OSError."""
        with self._lock:
            if self._durable.version < self._state.version:
                self._save(lambda: self._store.save(self.snapshot()))

    def drain(self) -> None:
        """From now on every reply tells its worker to leave; samples that still come are taken."""
        self._draining = True

    @property
    def stopping(self) -> bool:
        """Whether workers are to leave."""
        return self._draining or self._superseded or self._ended

    @property
    def _ended(self) -> bool:
        return self._published.version >= self._config.outer.updates

    def status(self) -> dict[str, Any]:
        """What `outertrain status` shows, as plain values."""
        current, durable = self._published, self._durable
        return {
            "epoch": current.epoch,
            "version": current.version,
            "updates": self._config.outer.updates,
            "batch": len(self._batch),
            "batch_samples": self._config.outer.batch_samples,
            "verdicts": dict(self._verdicts),
            "workers_known": len(self._ledger),
            "probe_rate": self._probe_rate,
            "stopping": self.stopping,
            "superseded": self._superseded,
            "seconds": self._around.clock() - self._began,
            "durable_version": durable.version,
            "durable_age": self._around.clock() - durable.time,
            "checkpoint_failures": durable.failures,
            "checkpoint_error": durable.error,
            "last": dict(self._last),
        }

    def _judge(self, payload: bytes) -> Verdict:
        try:
            sample = messages.unpack_sample(payload, self._max_bytes)
        except Malformed as error:
            with self._lock:
                return self._note(Verdict.malformed, payload, None, str(error))
        with self._lock:
            verdict = self._verdict(sample)
            self._note(verdict, payload, sample, verdict.sentence)
            if verdict is Verdict.accepted:
                self._take(sample, payload)
            return verdict

    def _verdict(self, sample: GradientSample) -> Verdict:
        if self._superseded:
            return Verdict.wrong_epoch
        return staleness.admit(sample, self._limits, self._standing(), self._ledger)

    def _standing(self) -> staleness.Standing:
        return staleness.Standing(self._store.epoch, self._state.version, self._store.ancestors, self._ended)

    def _note(self, verdict: Verdict, payload: bytes, sample: GradientSample | None, reason: str) -> Verdict:
        """Nothing vanishes: each payload is counted, and the 1st, 2nd, 4th, 8th ... refusal of a kind is logged."""
        self._verdicts[verdict.value] += 1
        count = self._verdicts[verdict.value]
        if verdict is not Verdict.accepted and count & (count - 1) == 0:
            log.warning("refused as %s (%d so far): %s", verdict.value, count, reason)
        behind = None if sample is None else staleness.staleness(sample, self._standing())
        size = len(payload) if isinstance(payload, bytes) else 0
        self._around.observer.observe_verdict(verdict.value, size, sample, behind)
        return verdict

    def _take(self, sample: GradientSample, payload: bytes) -> None:
        self._ledger.take(sample.worker, sample.sequence, self._state.version)
        self._batch.append((sample, payload))
        held = sum(staleness.samples_in(s, self._limits.pairs) for s, _ in self._batch)
        if held >= self._limits.batch_samples:
            batch, self._batch = self._batch, []
            self._update(batch)
            held = 0
        self._around.observer.set_batch(held, self._probe_rate)

    def _update(self, batch: list[tuple[GradientSample, bytes]]) -> None:
        if self._store.superseded():
            log.warning("a later learner has taken over this run: this one (epoch %d) stops", self._store.epoch)
            self._superseded = True
            return
        began, reached = time.perf_counter(), self._around.reached
        ordered = [batch[i] for i in states.order([s for s, _ in batch])]
        samples = [s for s, _ in ordered]
        reached("before_merge")
        merged = states.merge_batch(self._state, samples, self._rule)
        reached("after_merge")
        reached("before_update")
        before, (self._state, step) = self._state.version, states.advance(self._state, merged, self._optimizer)
        reached("after_update")
        if step.refused:
            log.warning("the step to version %d left the range of float32: theta stays", self._state.version)
        line = self._position() | history.describe_samples(samples, before, self._limits.pairs)
        line |= history.describe_step(merged, step) | {"verdicts": dict(self._verdicts)}
        entry = Entry(self.snapshot(), line, [payload for _, payload in ordered])
        self._save(lambda: self._store.commit(entry))
        self._last = line
        self._publish()
        self._around.observer.observe_update(line, self._limits.objective, time.perf_counter() - began)

    def _position(self) -> dict[str, Any]:
        now = self._around.clock()
        return {
            "epoch": self._store.epoch,
            "version": self._state.version,
            "time": now,
            "seconds": now - self._began,
        }

    def begin(self) -> None:
        """Makes the epoch's first checkpoint. Raises OSError."""
        size = self._store.begin(self._config, self._rule.segments, self.snapshot())
        self._durable = Durable(self._state.version, self._around.clock(), 0, "")
        self._around.observer.checkpoint_written(self._state.version, size, 0.0, self._durable.time)

    def _save(self, write: Callable[[], int]) -> None:
        """While the storage refuses, training goes on from memory: counted, shown, and tried again at each update."""
        began = time.perf_counter()
        try:
            size = write()
        except OSError as error:
            self._durable = self._durable._replace(failures=self._durable.failures + 1, error=str(error))
            self._around.observer.checkpoint_failed()
            log.error("version %d is not on disk (%s): %s", self._state.version, error, "make room; training goes on")
            return
        self._durable = Durable(self._state.version, self._around.clock(), self._durable.failures, "")
        self._around.observer.checkpoint_written(
            self._state.version, size, time.perf_counter() - began, self._durable.time
        )

    def _publish(self) -> None:
        """One immutable record, replaced at once: readers take no lock."""
        self._published = Parameters(self._store.epoch, self._state.version, messages.encode_theta(self._state.theta))
        self._probe_rate = states.probe_rate(self._state, self._config)
        self._around.observer.set_position(self._store.epoch, self._state.version)


class Durable(NamedTuple):
    """The newest version that would survive now."""

    version: int
    time: float
    failures: int  # checkpoints not written since the start
    error: str  # the reason of the last failure, "" once one succeeded
