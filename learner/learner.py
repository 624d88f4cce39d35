"""The learner: takes samples, steps when a batch is full, and answers with parameters. No Ray, no task, no network.

    exchange(sample or nothing, epoch and version known) -> verdict, parameters if newer, whether to stop

The exchange that fills a batch also updates. What is decided stands in `learner.state` and `learner.admission`; here
are the lock, the batch, and the order of events: merge, update, checkpoint, publish, reply.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from common.config import Config
from common.files import no_failpoint
from common.messages import GradientSample, Parameters, Reply, Verdict, encode_theta, pack_reply
from learner import record
from learner import state as states
from learner.admission import Standing, limits, samples_in
from learner.deduplication import Ledger
from learner.describe import Stamp, describe
from learner.failpoints import Reached
from learner.intake import Intake
from learner.keeper import Durable, Keeper
from learner.observer import Observer, Silent
from learner.outer_optimizer import OuterOptimizer
from learner.state import State
from learner.store import Store

log = logging.getLogger(__name__)


class Surroundings(NamedTuple):
    """What a learner is given besides its run; each part can be another one in a test."""

    observer: Observer = Silent()
    clock: Callable[[], float] = time.time  # unix seconds
    beside: Callable[[], dict[str, bytes]] = dict  # kept in each checkpoint next to the learner's own state
    reached: Reached = no_failpoint


class Published(NamedTuple):
    """What replies are made of. Immutable and replaced at once, so that readers take no lock."""

    parameters: Parameters
    probe_rate: float


class Learner:
    """One life of the learner of one run (made by `learner.recovery`). Threads may call `exchange` at the same time."""

    def __init__(
        self,
        config: Config,
        digest: str,
        segments: np.ndarray,
        state: State,
        ledger: Ledger,
        store: Store,
        around: Surroundings,
    ) -> None:
        self._config, self._digest, self._store, self._around = config, digest, store, around
        self._optimizer, self._rule = OuterOptimizer(config.outer), states.rule_of(config, segments)
        self._bounds = limits(config, digest, len(state.theta))
        self._intake = Intake(self._bounds, ledger, around.observer)
        self._began = around.clock()
        self._keeper = Keeper(Durable(state.version, self._began), around.observer, around.clock)
        self._state, self._batch, self._held = state, list[tuple[GradientSample, bytes]](), 0
        self._lock = threading.Lock()
        self._draining = self._superseded = self._answered = False
        self._publish()

    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """The protocol of common/messages.py: judges the payload, answers what the caller does not hold yet."""
        if self._answered:
            self._around.reached("after_reply")
        verdict = None if payload is None else self._receive(payload)
        (at_epoch, at_version, theta), probe_rate = self._published
        known = (epoch, version) == (at_epoch, at_version)
        reply = Reply(verdict, at_epoch, at_version, self._digest, None if known else theta, self.stopping, probe_rate)
        self._around.reached("before_reply")
        self._answered = True
        return pack_reply(reply)

    def snapshot(self) -> dict[str, Any]:
        """The record of a checkpoint, from which another learner of this run goes on (`learner.recovery`)."""
        return record.make(self._store.epoch, self._digest, self._state, self._intake.ledger, self._around.beside())

    def drain(self) -> None:
        """From now on every reply tells its worker to leave; samples that still come are taken."""
        self._draining = True

    def persist(self) -> None:
        """Writes what the disk had no room for, if there is room now. Otherwise nothing is left to write."""
        with self._lock:
            if self._keeper.durable.version < self._state.version:
                self._keeper.keep(self._state.version, lambda: self._store.save(self.snapshot()))

    @property
    def finished(self) -> bool:
        """Whether all outer updates are done."""
        return self._published.parameters.version >= self._config.outer.updates

    @property
    def stopping(self) -> bool:
        """Whether workers are to leave."""
        return self._draining or self._superseded or self.finished

    def status(self) -> dict[str, Any]:
        """Plain values, as `outertrain status` shows them; no lock."""
        now, durable = self._around.clock(), self._keeper.durable
        return {
            "epoch": self._published.parameters.epoch,
            "version": self._published.parameters.version,
            "updates": self._config.outer.updates,
            "finished": self.finished,
            "stopping": self.stopping,
            "superseded": self._superseded,
            "batch": self._held,
            "batch_samples": self._config.outer.batch_samples,
            "verdicts": dict(self._intake.verdicts),
            "workers_known": len(self._intake.ledger),
            "probe_rate": self._published.probe_rate,
            "seconds": now - self._began,
            "durable_version": durable.version,
            "durable_seconds_ago": now - durable.time,
            "checkpoint_failures": durable.failures,
            "checkpoint_error": durable.error,
        }

    def _receive(self, payload: bytes) -> Verdict:
        sample, reason = self._intake.read(payload)
        size = len(payload) if isinstance(payload, bytes) else 0
        with self._lock:
            if sample is not None and self._held + samples_in(sample, self._bounds.pairs) >= self._bounds.batch_samples:
                self._look_for_successor()
            verdict = self._intake.judge(sample, reason, size, self._standing())
            if verdict is Verdict.accepted and sample is not None:
                self._take(sample, payload)
                self._around.observer.set_batch(self._held, self._published.probe_rate)
            return verdict

    def _take(self, sample: GradientSample, payload: bytes) -> None:
        self._batch.append((sample, payload))
        self._held += samples_in(sample, self._bounds.pairs)
        if self._held >= self._bounds.batch_samples:
            batch, self._batch, self._held = self._batch, [], 0
            self._update(batch)

    def _standing(self) -> Standing:
        closed = Verdict.wrong_epoch if self._superseded else Verdict.stale if self.finished else None
        return Standing(self._store.epoch, self._state.version, self._store.ancestors, closed)

    def _look_for_successor(self) -> None:
        """Before a sample that would fill the batch: nothing is applied and acknowledged that nobody will read."""
        if not self._superseded and self._store.superseded():
            log.warning("a later learner has taken over this run: this one (epoch %d) stops", self._store.epoch)
            self._superseded = True

    def _update(self, batch: list[tuple[GradientSample, bytes]]) -> None:
        """Samples merge in the order of their names, which fixes every bit of the result."""
        began, reached = time.perf_counter(), self._around.reached
        batch.sort(key=lambda pair: (pair[0].worker, pair[0].sequence))
        samples = [sample for sample, _ in batch]
        reached("before_merge")
        merged = states.merge_batch(self._state, samples, self._rule)
        reached("after_merge")
        reached("before_update")
        state, step = states.advance(self._state, merged, self._optimizer)
        reached("after_update")
        if step.refused:
            log.warning("the step to version %d left the range of float32: theta stays as it was", state.version)
        self._state = state
        made = describe(self._stamp(), samples, self._bounds.pairs, merged, step)
        self._store.add(made, [payload for _, payload in batch])
        self._keeper.keep(state.version, lambda: self._store.save(self.snapshot()))
        self._publish()
        self._around.observer.observe_update(made, self._bounds.objective, time.perf_counter() - began)

    def _stamp(self) -> Stamp:
        now = self._around.clock()
        return Stamp(self._store.epoch, self._state.version, now, now - self._began, dict(self._intake.verdicts))

    def _publish(self) -> None:
        parameters = Parameters(self._store.epoch, self._state.version, encode_theta(self._state.theta))
        self._published = Published(parameters, states.probe_rate(self._state, self._config))
        self._around.observer.set_position(self._store.epoch, self._state.version)
