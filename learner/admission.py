"""Admission: every payload is parsed, judged, counted, and remembered by name if it is accepted.

The judgement (`admit`) is pure: the sample's run, its numbers, the place of its parameters in the lineage, its name.
Staleness is a difference of versions, never of clocks. Its mean is about workers / batch (Little's law); a limit
rejects long windows and slow workers first, which biases the outer gradient, so there is none by default.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from common.config import Config
from common.messages import GradientSample, Verdict, max_bytes, unpack_sample
from common.moments import Moments
from common.wire_checks import Malformed
from learner.deduplication import Deduplicator
from learner.observer import Observer

log = logging.getLogger(__name__)
_LARGEST_NOISE = 8.0  # standard deviations; a Gaussian draw beyond it has probability 1e-15
_LARGEST_RP = float(np.finfo(np.float32).max)  # workers differentiate in float32
_SLACK = 1 + 1e-4  # float32 rounding of the workers


class Limits(NamedTuple):
    """What the samples of one run can look like."""

    config: Config
    digest: str  # of the configuration and the data
    size: int  # P
    loss: float  # the clamp
    es: float  # of |es|; infinite without noise
    steps: Mapping[str, int]  # of the longest inner problem, by family


class Head(NamedTuple):
    """The learner's position in its run's lineage."""

    epoch: int
    version: int
    ancestors: Mapping[int, int]  # earlier epochs that this one descends from -> the last version of each that counts
    closed: Verdict | None = None  # what valid samples get instead of being accepted


def limits(config: Config, digest: str, size: int) -> Limits:
    """The limits of a run whose theta has `size` coordinates."""
    clamp, sigma = config.estimator.clamp, config.estimator.sigma
    es = _LARGEST_NOISE * clamp / (2 * sigma) * _SLACK if sigma > 0 else np.inf
    steps = {member.name: member.config.task.longest for member in config.members}
    return Limits(config, digest, size, clamp * _SLACK, es, steps)


def admit(sample: GradientSample, bounds: Limits, head: Head, taken: Deduplicator) -> Verdict:
    """The verdict on a well-formed sample. Changes nothing: the caller remembers what it accepts."""
    if sample.digest != bounds.digest:
        return Verdict.wrong_run
    if not _fits(sample, bounds):
        return Verdict.malformed
    if not _finite(sample, bounds):
        return Verdict.non_finite
    if not _possible(sample, bounds):
        return Verdict.malformed
    if sample.epoch == head.epoch and sample.version > head.version:
        return Verdict.malformed
    if staleness(sample, head) is None:
        return Verdict.wrong_epoch
    if taken.is_duplicate(sample.worker, sample.sequence):
        return Verdict.duplicate
    limit = bounds.config.outer.max_staleness
    if 0 <= limit < head.version - sample.version or taken.may_be_duplicate(sample.worker, sample.version):
        return Verdict.stale
    return head.closed or Verdict.accepted


def staleness(sample: GradientSample, head: Head) -> int | None:
    """Versions since the sample's parameters; None when these are not on the learner's lineage."""
    newest = head.version if sample.epoch == head.epoch else head.ancestors.get(sample.epoch, -1)
    return head.version - sample.version if sample.version <= newest else None


def samples_in(sample: GradientSample, pairs: int) -> int:
    """How many workers' samples of `pairs` pairs it stands for: 1, or more in an aggregate."""
    return len(sample.windows) // pairs


def _fits(sample: GradientSample, bounds: Limits) -> bool:
    """Whether its counts and lengths are those of this run."""
    estimator, pairs = bounds.config.estimator, len(sample.windows)
    has_es, needs_rp = estimator.sigma > 0, estimator.use == "rp"
    drops = needs_rp and estimator.rp_nonfinite == "drop"
    steps = zip(sample.starts, sample.windows, strict=True)
    return (
        sample.family in bounds.steps
        and len(sample.es.mean) == (bounds.size if sample.rp.count or sample.es.count else 0)
        and pairs % estimator.pairs == 0
        and samples_in(sample, estimator.pairs) <= bounds.config.outer.batch_samples
        and sample.objective == estimator.objective
        and sample.es.count == (pairs if has_es else 0)
        and (sample.rp.count == pairs or drops or (has_es and not needs_rp))
        and all(start + window <= bounds.steps[sample.family] for start, window in steps)
    )


def _finite(sample: GradientSample, bounds: Limits) -> bool:
    """rp may be non-finite where the merge can fall back to es."""
    alone = bounds.config.estimator.use == "rp"
    vectors = (*sample.es[1:], *sample.rp[1:]) if alone else sample.es[1:]
    losses = all(map(math.isfinite, sample.loss_plus + sample.loss_minus))
    return losses and all(bool(np.isfinite(vector).all()) for vector in vectors)


def _possible(sample: GradientSample, bounds: Limits) -> bool:
    """Whether clamped losses and Gaussian noise can give these numbers."""
    if max(*sample.loss_plus, *sample.loss_minus) > bounds.loss:
        return False
    if (sample.rp.m2 < 0).any():
        return False
    if bounds.config.estimator.use == "rp" and not _within(sample.rp, _LARGEST_RP):
        return False
    return _within(sample.es, bounds.es)


def _within(moments: Moments, bound: float) -> bool:
    """Means within the bound, and squared deviations that `count` values within it can have."""
    if moments.count == 0:
        return True
    means = -bound <= moments.mean.min() and moments.mean.max() <= bound
    return bool(means and moments.m2.min() >= 0 and moments.m2.max() <= moments.count * bound * bound)


class Admission:
    """The stateful part. `parse` may run in many threads; `judge` needs the learner's lock."""

    def __init__(self, bounds: Limits, taken: Deduplicator, observer: Observer) -> None:
        self.verdicts: Counter[str] = Counter()  # workers' samples by verdict: an aggregate is several
        self._messages: Counter[str] = Counter()  # by verdict
        self.taken = taken
        self._bounds, self._observer = bounds, observer
        self._max_bytes = max_bytes(bounds.size)

    def parse(self, payload: bytes) -> tuple[GradientSample | None, str]:
        """The sample, or None and the reason."""
        try:
            return unpack_sample(payload, self._max_bytes), ""
        except Malformed as error:
            return None, str(error)

    def judge(self, sample: GradientSample | None, reason: str, size: int, head: Head) -> Verdict:
        """The verdict on what `parse` returned for a payload of `size` bytes. An accepted sample is remembered."""
        if sample is None:
            verdict, behind = Verdict.malformed, None
        else:
            verdict, behind = admit(sample, self._bounds, head, self.taken), staleness(sample, head)
            reason = f"{verdict.sentence} It came from worker {sample.worker}."
            if verdict is Verdict.accepted:
                self.taken.accept(sample.worker, sample.sequence, head.version)
        samples = self._samples_in(sample, verdict)
        self.verdicts[verdict.value] += samples
        self._log(verdict, reason)
        self._observer.observe_verdict(verdict.value, size, sample, behind, samples)
        return verdict

    def _samples_in(self, sample: GradientSample | None, verdict: Verdict) -> int:
        """How many samples to count; 1 where the message's own lengths may be wrong, which aggregators do not merge."""
        if sample is None or verdict in (Verdict.malformed, Verdict.wrong_run):
            return 1
        return samples_in(sample, self._bounds.config.estimator.pairs)

    def _log(self, verdict: Verdict, reason: str) -> None:
        """Logs the 1st, 2nd, 4th, 8th ... rejection of each kind: a flood of them must not fill the disk."""
        self._messages[verdict.value] += 1
        count = self._messages[verdict.value]
        if verdict is not Verdict.accepted and count & (count - 1) == 0:
            log.warning("rejected as %s (%d so far): %s", verdict.value, count, reason)
