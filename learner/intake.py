"""What comes in: payloads are read, judged, counted, and remembered by name. Nothing vanishes."""

import logging
from collections import Counter

from common.messages import GradientSample, Malformed, Verdict, max_bytes, unpack_sample
from learner.admission import Limits, Standing, admit, staleness
from learner.deduplication import Ledger
from learner.observer import Observer

log = logging.getLogger(__name__)


class Intake:
    """The learner's door. `read` may run in many threads; `judge` needs the learner's lock."""

    def __init__(self, bounds: Limits, ledger: Ledger, observer: Observer) -> None:
        self.verdicts: Counter[str] = Counter()
        self.ledger = ledger
        self._bounds, self._observer = bounds, observer
        self._max_bytes = max_bytes(bounds.size)

    def read(self, payload: bytes) -> tuple[GradientSample | None, str]:
        """The sample, or None and the reason."""
        try:
            return unpack_sample(payload, self._max_bytes), ""
        except Malformed as error:
            return None, str(error)

    def judge(self, sample: GradientSample | None, reason: str, size: int, standing: Standing) -> Verdict:
        """The verdict on what `read` gave for a payload of `size` bytes; an accepted sample's name is taken."""
        if sample is None:
            verdict, behind = Verdict.malformed, None
        else:
            verdict, behind = admit(sample, self._bounds, standing, self.ledger), staleness(sample, standing)
            reason = f"{verdict.sentence} It came from worker {sample.worker}."
            if verdict is Verdict.accepted:
                self.ledger.take(sample.worker, sample.sequence, standing.version)
        self._count(verdict, reason)
        self._observer.observe_verdict(verdict.value, size, sample, behind)
        return verdict

    def _count(self, verdict: Verdict, reason: str) -> None:
        """Logs the 1st, 2nd, 4th, 8th ... refusal of each kind: a flood must not fill the disk."""
        self.verdicts[verdict.value] += 1
        count = self.verdicts[verdict.value]
        if verdict is not Verdict.accepted and count & (count - 1) == 0:
            log.warning("refused as %s (%d so far): %s", verdict.value, count, reason)
