"""An aggregator: the learner's interface, before the learner. It merges samples of its workers, and sends one for many.

For thousands of workers: one on each machine. The merge is exact up to rounding (common/moments.py). Not for few
workers: a sample waits until its group is full, and an aggregator that dies takes the samples that it holds along.
What it cannot merge with a clear conscience goes through to the learner as it is, whose verdict is the answer.
"""

import threading
from collections.abc import Callable, Sequence

from common import facts, moments
from common.config import Config
from common.messages import (
    GradientSample,
    Malformed,
    Reply,
    Verdict,
    max_bytes,
    pack_reply,
    pack_sample,
    unpack_reply,
    unpack_sample,
)
from learner.admission import Standing, admit, limits
from learner.deduplication import Ledger

Exchange = Callable[[bytes | None, int, int], bytes]


class Aggregator:
    """Groups samples computed with the same parameters, at most `size` of them. Threads may call `exchange` at once."""

    def __init__(self, config: Config, uid: str, exchange: Exchange, size: int):
        """`uid` is unique over all lives of all aggregators and workers; `size` is at most `outer.batch_samples`."""
        self._config, self._uid, self._upstream = config, uid, exchange
        self._size = min(size, config.outer.batch_samples)
        self._ledger = Ledger()
        self._group: list[GradientSample] = []
        self._sequence = 0
        self._newest: Reply | None = None  # with theta
        self._lock, self._sending = threading.Lock(), threading.Lock()

    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """As `Learner.exchange`; a sample that is held counts as accepted."""
        if payload is None or self._newest is None:
            self._ask(None)
        if payload is None:
            return self._answer(None, epoch, version)
        with self._lock:
            verdict, ready = self._take(payload)
        for group in ready:
            self._send(group)
        if verdict is None:
            return self._upstream(payload, epoch, version)
        return self._answer(verdict, epoch, version)

    def _take(self, payload: bytes) -> tuple[Verdict | None, list[list[GradientSample]]]:
        """The verdict, None where the learner is to give it, and the groups that are to be sent now."""
        assert self._newest is not None and self._newest.theta is not None
        size = len(self._newest.theta) // 4
        try:
            sample = unpack_sample(payload, max_bytes(size))
        except Malformed:
            return None, []
        standing = Standing(self._newest.epoch, self._newest.version, {})
        verdict = admit(sample, limits(self._config, self._newest.digest, size), standing, self._ledger)
        if verdict is Verdict.duplicate:
            return verdict, []
        if verdict is not Verdict.accepted:
            return None, []
        self._ledger.take(sample.worker, sample.sequence, sample.version)
        return verdict, self._add(sample)

    def _add(self, sample: GradientSample) -> list[list[GradientSample]]:
        """A group ends when it is full, or when samples of other parameters come."""
        ready = []
        if self._group and self._group[0][2:4] != sample[2:4]:  # epoch and version
            ready.append(self._group)
            self._group = []
        self._group.append(sample)
        if len(self._group) == self._size:
            ready.append(self._group)
            self._group = []
        return ready

    def _send(self, group: list[GradientSample]) -> None:
        """One after another: the learner takes a number that comes after a higher one for a repetition."""
        with self._sending:
            self._sequence += 1
            self._ask(pack_sample(merged(group, self._uid, self._sequence)))

    def _ask(self, payload: bytes | None) -> None:
        """Sends what there is, and takes in the newest parameters."""
        known = (-1, -1) if self._newest is None else (self._newest.epoch, self._newest.version)
        reply = unpack_reply(self._upstream(payload, *known))
        with self._lock:
            old = self._newest
            if reply.theta is None and old is not None and old[1:3] == reply[1:3]:
                reply = reply._replace(theta=old.theta)
            if reply.theta is not None and (old is None or old[1:3] <= reply[1:3]):
                self._newest = reply

    def _answer(self, verdict: Verdict | None, epoch: int, version: int) -> bytes:
        assert self._newest is not None
        reply = self._newest._replace(verdict=verdict)
        return pack_reply(reply._replace(theta=None) if (epoch, version) == reply[1:3] else reply)


def merged(group: Sequence[GradientSample], uid: str, sequence: int) -> GradientSample:
    """One sample for many of the same parameters, in the order of their names. Counts add up, durations are means."""
    ordered = sorted(group, key=lambda s: (s.worker, s.sequence))
    size = len(ordered[0].es.mean)
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
