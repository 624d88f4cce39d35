"""The learner: takes samples, updates theta when a batch is full, and replies with parameters. No Ray, task or network.

    exchange(sample or nothing, epoch and version known) -> verdict, parameters if newer, whether to stop

The exchange that fills a batch also performs the update. The decisions are pure functions of `learner.state` and
`learner.admission`; here are the lock, the batch, and the order of events: merge, update, checkpoint, publish, reply.
"""

import logging
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from common.config import Config
from common.messages import GradientSample, Parameters, Reply, Verdict, encode_theta, pack_reply
from learner import state as states
from learner.admission import Admission, Head, limits, samples_in
from learner.deduplication import Deduplicator
from learner.describe import Stamp, describe
from learner.hooks import Hooks
from learner.merge import Rule
from learner.outer_optimizer import OuterOptimizer
from learner.state import State
from learner.status import LearnerStatus
from learner.store import Store

log = logging.getLogger(__name__)


class Setup(NamedTuple):
    """What a run is trained with."""

    config: Config
    digest: str  # of the configuration and the data
    segments: np.ndarray  # [P] int, which tensor each coordinate belongs to


class Published(NamedTuple):
    """What replies are made of. Immutable and replaced as a whole, so that readers need no lock."""

    parameters: Parameters
    probe_rate: float
    finished: bool  # all outer updates are done
    ramps: tuple[int, ...]  # of the curriculum, as in `Reply`


class Learner:
    """One incarnation of the learner of a run, created by `learner.recovery`. `exchange` is thread-safe."""

    def __init__(self, setup: Setup, state: State, taken: Deduplicator, store: Store, hooks: Hooks) -> None:
        config = setup.config
        self._config, self._digest, self._store, self._hooks = config, setup.digest, store, hooks
        self._optimizer, self._rule = OuterOptimizer(config.outer), Rule(config.estimator, setup.segments)
        self._admission = Admission(limits(config, setup.digest, len(state.theta)), taken, hooks.observer)
        self._began = hooks.clock()
        self._state, self._batch, self._held = state, list[tuple[GradientSample, bytes]](), 0
        self._lock = threading.Lock()
        self._draining = self._superseded = self._replied = False
        self._unsaved: dict[str, Any] | None = None  # the checkpoint that could not be written
        self._publish()

    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """The protocol of `common.messages`: judges the payload, replies with what the caller does not hold yet."""
        if self._replied:
            self._hooks.failpoint("after_reply")
        verdict = None if payload is None else self._receive(payload)
        (at_epoch, at_version, theta), probe_rate, _, ramps = self._published
        known = (epoch, version) == (at_epoch, at_version)
        sent, stop = None if known else theta, self.stopping
        reply = Reply(verdict, at_epoch, at_version, self._digest, sent, stop, probe_rate, ramps)
        self._hooks.failpoint("before_reply")
        self._replied = True
        return pack_reply(reply)

    def snapshot(self) -> dict[str, Any]:
        """The record of a checkpoint, from which another learner of this run resumes (`learner.recovery`)."""
        epoch, auxiliary = self._store.epoch, self._hooks.auxiliary()
        return states.to_record(epoch, self._digest, self._state, self._admission.taken, auxiliary)

    def drain(self) -> None:
        """From now on every reply tells its worker to stop; samples that still arrive are accepted."""
        self._draining = True

    def persist(self) -> None:
        """Tries again to write the checkpoint of the present version, if it is not durable yet.

        It is that of the update itself: samples that came since are in no batch that was applied.
        """
        with self._lock:
            if self._unsaved is not None:
                self._save(self._unsaved)

    @property
    def inner_steps(self) -> int:
        """Of all updates so far."""
        return self._state.inner_steps

    @property
    def finished(self) -> bool:
        """Whether all outer updates are done."""
        return self._published.finished

    @property
    def stopping(self) -> bool:
        """Whether workers are told to stop."""
        return self._draining or self._superseded or self.finished

    def status(self) -> LearnerStatus:
        """The present state. Takes no lock."""
        now, durable = self._hooks.clock(), self._store.durable
        return LearnerStatus(
            epoch=self._published.parameters.epoch,
            version=self._published.parameters.version,
            updates=self._config.outer.updates,
            finished=self.finished,
            stopping=self.stopping,
            superseded=self._superseded,
            batch=self._held,
            batch_samples=self._config.outer.batch_samples,
            verdicts=dict(self._admission.verdicts),
            workers_known=len(self._admission.taken),
            probe_rate=self._published.probe_rate,
            seconds=now - self._began,
            durable_version=durable.version,
            durable_seconds_ago=now - durable.time,
            checkpoint_failures=durable.failures,
            checkpoint_error=durable.error,
        )

    def _receive(self, payload: bytes) -> Verdict:
        sample, reason = self._admission.parse(payload)
        size = len(payload) if isinstance(payload, bytes) else 0
        with self._lock:
            if sample is not None and self._held + self._samples_in(sample) >= self._config.outer.batch_samples:
                self._look_for_successor()
            verdict = self._admission.judge(sample, reason, size, self._head())
            if verdict is Verdict.accepted and sample is not None:
                self._accept(sample, payload)
                self._hooks.observer.set_batch(self._held, self._published.probe_rate)
            return verdict

    def _accept(self, sample: GradientSample, payload: bytes) -> None:
        self._batch.append((sample, payload))
        self._held += self._samples_in(sample)
        if self._held >= self._config.outer.batch_samples:
            batch, self._batch, self._held = self._batch, [], 0
            self._update(batch)

    def _samples_in(self, sample: GradientSample) -> int:
        return samples_in(sample, self._config.estimator.pairs)

    def _head(self) -> Head:
        closed = Verdict.wrong_epoch if self._superseded else Verdict.stale if self.finished else None
        return Head(self._store.epoch, self._state.version, self._store.ancestors, closed)

    def _look_for_successor(self) -> None:
        """Called before a sample fills the batch: nothing is applied and acknowledged that nobody will read."""
        if not self._superseded and self._store.superseded():
            log.warning("a later learner has taken over this run: this one (epoch %d) stops", self._store.epoch)
            self._superseded = True

    def _update(self, batch: list[tuple[GradientSample, bytes]]) -> None:
        """Samples are merged in the order of their names, which determines every bit of the result."""
        began, failpoint = time.perf_counter(), self._hooks.failpoint
        batch.sort(key=lambda pair: (pair[0].worker, pair[0].sequence))
        samples = [sample for sample, _ in batch]
        failpoint("before_merge")
        merged = states.merge_batch(self._state, samples, self._rule)
        failpoint("after_merge")
        failpoint("before_update")
        state, step = states.advance(self._state, merged, self._optimizer, states.inner_steps(samples))
        failpoint("after_update")
        if step.rejected:
            log.warning("the step to version %d left the range of float32: theta is unchanged", state.version)
        self._state = state
        record = describe(self._stamp(), samples, self._rule, merged, step)
        self._store.add(record, [payload for _, payload in batch])
        self._save(self.snapshot())
        self._publish()
        self._hooks.observer.observe_update(record, self._config.estimator.objective, time.perf_counter() - began)

    def _save(self, record: dict[str, Any]) -> None:
        self._store.save(record)
        self._unsaved = record if self._store.durable.version < record["version"] else None

    def _stamp(self) -> Stamp:
        now = self._hooks.clock()
        verdicts, state = dict(self._admission.verdicts), self._state
        allocation = states.allocation(state, self._config)
        return Stamp(self._store.epoch, state.version, now, now - self._began, verdicts, state.inner_steps, allocation)

    def _publish(self) -> None:
        parameters = Parameters(self._store.epoch, self._state.version, encode_theta(self._state.theta))
        ended = states.finished(self._state, self._config.outer)
        rate, ramps = states.probe_rate(self._state, self._config), states.ramps(self._state)
        self._published = Published(parameters, rate, ended, ramps)
        self._hooks.observer.set_position(self._store.epoch, self._state.version)
