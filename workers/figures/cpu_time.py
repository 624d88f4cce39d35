"""CPU time along outer-trainings: what their samples took, and how much of it a loss costs."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from common.update_record import UpdateRecord


class Curve(Protocol):
    """An outer-training whose theta was judged along the way."""

    @property
    def losses(self) -> Sequence[float]: ...

    @property
    def seconds(self) -> Sequence[float]: ...  # [judged] CPU seconds of all samples so far


def cpu_seconds(history: Sequence[UpdateRecord]) -> list[float]:
    """[updates] CPU seconds of the samples, without compilations.

    The first update with rp compiles, and so does the first without it, in a mixture those of each family: they count, per
    inner step, as the next update that computed rp for as many of its pairs.
    """
    shares = [update.rp_pairs / update.es_pairs for update in history]
    rates = [update.cpu_seconds / max(update.inner_steps, 1) for update in history]
    firsts = set()
    for family in {name for update in history for name in _families(update)}:
        own = [k for k, update in enumerate(history) if family in _families(update)]
        firsts |= {next((k for k in own if shares[k] > 0), own[0]), next((k for k in own if shares[k] < 1), own[0])}
    for k in firsts:
        later = (j for j in range(k + 1, len(shares)) if j not in firsts and shares[j] == shares[k])
        rates[k] = rates[next(later, k)]
    return [update.inner_steps * rate for update, rate in zip(history, rates)]


def _families(update: UpdateRecord) -> list[str]:
    return list(update.families) or [""]


def seconds_to(one: Curve, loss: float) -> float:
    """CPU seconds until the least loss so far falls to `loss`, interpolated between judged thetas."""
    least, first = np.unique(np.minimum.accumulate(one.losses), return_index=True)
    return float(np.interp(loss, least, np.array(one.seconds)[first]))


def ratio_of_seconds(one: Curve, other: Curve) -> float:
    """CPU seconds of `one` over those of `other`, to the higher of the two losses that they reach; 1 if one learns nothing."""
    loss = max(min(one.losses), min(other.losses))
    first, second = seconds_to(one, loss), seconds_to(other, loss)
    return first / second if first and second else 1.0
