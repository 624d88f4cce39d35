"""Facts: what a worker reports alongside a sample, for the metrics. Nothing in them changes theta."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Facts(NamedTuple):
    """Counts and durations of one sample, or of an aggregate. None: not reported."""

    inner_steps: float | None = None  # inner training steps, over all branches of all pairs
    finished: float | None = None  # inner problems that reached their last step
    diverged: float | None = None  # inner problems that were abandoned
    task_seconds: float | None = None  # creating new tasks
    exchange_seconds: float | None = None  # of the exchange before this one
    cpu_seconds: float | None = None  # of the worker's process, computing the sample
    rp_clipped: float | None = None  # pairs whose rp was not finite and was clipped; reported only if there are any


def merge(parts: Sequence[Facts]) -> Facts:
    """Facts of an aggregate of samples: counts are sums, durations are means over all samples."""
    return Facts(
        inner_steps=_sum(p.inner_steps for p in parts),
        finished=_sum(p.finished for p in parts),
        diverged=_sum(p.diverged for p in parts),
        task_seconds=_sum((p.task_seconds for p in parts), len(parts)),
        exchange_seconds=_sum((p.exchange_seconds for p in parts), len(parts)),
        cpu_seconds=_sum(p.cpu_seconds for p in parts),
        rp_clipped=_sum(p.rp_clipped for p in parts),
    )


def _sum(values: Iterable[float | None], divisor: int = 1) -> float | None:
    """Sum of what was reported, each value divided first; None when nothing was."""
    known = [value / divisor for value in values if value is not None]
    return sum(known, 0.0) if known else None
