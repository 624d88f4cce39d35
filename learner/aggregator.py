"""An aggregator: merges the samples of many workers into one and sends that to the learner. It has the learner's interface.

For thousands of workers: one aggregator on each machine. The merge is exact up to rounding (`common.moments`). Do not
use it for few workers: a sample waits until its group is full, and an aggregator that dies loses the samples that it
holds. In a run with a mixture, a group is sent as one sample of each family in it: their deviations stay apart. Samples that it cannot validate are forwarded unchanged, and get the learner's verdict.
"""

import threading
from collections.abc import Sequence

from common import facts, moments
from common.config import Config
from common.exchange import Exchange
from common.messages import (
    GradientSample,
    Reply,
    Verdict,
    max_bytes,
    pack_reply,
    pack_sample,
    unpack_reply,
    unpack_sample,
)
from common.wire_checks import Malformed
from learner.admission import Head, admit, limits
from learner.deduplication import Deduplicator


class Aggregator:
    """Groups samples that were computed with the same parameters, at most `size` of them. `exchange` is thread-safe."""

    def __init__(self, config: Config, uid: str, exchange: Exchange, size: int):
        """A group of `size` samples, at most `outer.batch_samples`, is sent as one sample of worker `uid`.

        Args:
          uid: unique over all incarnations of all aggregators and workers.
          exchange: of the learner.
        """
        self._config, self._uid, self._upstream = config, uid, exchange
        self._size = min(size, config.outer.batch_samples)
        self._taken = Deduplicator()
        self._group: list[GradientSample] = []
        self._sequence = 0
        self._newest: Reply | None = None  # with theta
        self._lock, self._sending = threading.Lock(), threading.Lock()

    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """As `Learner.exchange`. A sample that is held gets the verdict `accepted`."""
        if payload is None or self._newest is None:
            self._ask(None)
        if payload is None:
            return self._reply(None, epoch, version)
        with self._lock:
            verdict, ready = self._accept(payload)
        for group in ready:
            for family in sorted({sample.family for sample in group}):
                self._send([sample for sample in group if sample.family == family])
        if verdict is None:
            return self._upstream(payload, epoch, version)
        return self._reply(verdict, epoch, version)

    def _accept(self, payload: bytes) -> tuple[Verdict | None, list[list[GradientSample]]]:
        """The verdict, or None where the learner has to judge, and the groups that are complete."""
        assert self._newest is not None and self._newest.theta is not None
        size = len(self._newest.theta) // 4
        try:
            sample = unpack_sample(payload, max_bytes(size))
        except Malformed:
            return None, []
        head = Head(self._newest.epoch, self._newest.version, {})
        verdict = admit(sample, limits(self._config, self._newest.digest, size), head, self._taken)
        if verdict is Verdict.duplicate:
            return verdict, []
        if verdict is not Verdict.accepted:
            return None, []
        self._taken.accept(sample.worker, sample.sequence, sample.version)
        return verdict, self._add(sample)

    def _add(self, sample: GradientSample) -> list[list[GradientSample]]:
        """A group is complete when it is full, or when a sample of other parameters arrives."""
        ready = []
        if self._group and _parameters(self._group[0]) != _parameters(sample):
            ready.append(self._group)
            self._group = []
        self._group.append(sample)
        if len(self._group) == self._size:
            ready.append(self._group)
            self._group = []
        return ready

    def _send(self, group: list[GradientSample]) -> None:
        """One group at a time: to the learner, a sequence number that arrives after a higher one is a duplicate."""
        with self._sending:
            self._sequence += 1
            self._ask(pack_sample(merged(group, self._uid, self._sequence)))

    def _ask(self, payload: bytes | None) -> None:
        """Sends the payload, if any, and stores the newest parameters."""
        known = (-1, -1) if self._newest is None else (self._newest.epoch, self._newest.version)
        reply = unpack_reply(self._upstream(payload, *known))
        with self._lock:
            old = self._newest
            if reply.theta is None and old is not None and _parameters(old) == _parameters(reply):
                reply = reply._replace(theta=old.theta)
            if reply.theta is not None and (old is None or _parameters(old) <= _parameters(reply)):
                self._newest = reply

    def _reply(self, verdict: Verdict | None, epoch: int, version: int) -> bytes:
        assert self._newest is not None
        reply = self._newest._replace(verdict=verdict)
        return pack_reply(reply._replace(theta=None) if (epoch, version) == _parameters(reply) else reply)


def _parameters(record: GradientSample | Reply) -> tuple[int, int]:
    return record.epoch, record.version


def merged(group: Sequence[GradientSample], uid: str, sequence: int) -> GradientSample:
    """One sample that stands for a group of one family and the same parameters, merged in the order of their names.

    Its duration is the mean of theirs.
    """
    ordered = sorted(group, key=lambda s: (s.worker, s.sequence))
    size = max(len(s.es.mean) for s in ordered)  # 0 where a sample holds no observation
    return ordered[0]._replace(
        worker=uid,
        sequence=sequence,
        windows=tuple(w for s in ordered for w in s.windows),
        starts=tuple(w for s in ordered for w in s.starts),
        loss_plus=tuple(x for s in ordered for x in s.loss_plus),
        loss_minus=tuple(x for s in ordered for x in s.loss_minus),
        rp=moments.combine_all((s.rp for s in ordered), size),
        es=moments.combine_all((s.es for s in ordered), size),
        seconds=sum(s.seconds for s in ordered) / len(ordered),
        facts=facts.merge([s.facts for s in ordered]),
    )
