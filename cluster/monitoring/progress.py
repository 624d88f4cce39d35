"""The progress of a run in a few numbers, from the newest records of its history and the status of its fleet."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cluster.monitoring.fleet_status import FleetStatus
from common.update_record import UpdateRecord

RECENT = 20  # updates that rates and means are taken over


class Progress(NamedTuple):
    """None: not known yet."""

    version: int
    target: int  # outer updates of the whole run
    loss: float | None  # mean over recent updates
    weight_rp: float | None
    staleness: float | None
    samples_per_second: float | None
    steps_per_second: float | None  # inner steps
    workers: int | None  # running
    workers_wanted: int | None
    seconds_left: float | None


def summarise(
    records: Sequence[UpdateRecord], version: int, target: int, fleet: FleetStatus, now: float, epoch: int | None = None
) -> Progress:
    """The progress at time `now` (unix seconds).

    Args:
      records: the newest of the history, oldest first.
      version: of theta.
      target: outer updates of the whole run.
      epoch: of the learner; None: that of the last record.
    """
    recent = records[-RECENT:]
    timed = of_epoch(recent, epoch)
    rate = _rate(timed)
    return Progress(
        version=version,
        target=target,
        loss=_mean([r.loss for r in recent]),
        weight_rp=_mean([r.weight_rp.mean for r in recent]),
        staleness=_mean([r.staleness.mean for r in recent]),
        samples_per_second=_per_second(timed, [r.samples for r in timed]),
        steps_per_second=_per_second(timed, [r.inner_steps for r in timed]),
        workers=fleet.running,
        workers_wanted=fleet.target,
        seconds_left=None if rate is None else max((target - version) / rate - (now - timed[-1].time), 0.0),
    )


def of_epoch(records: Sequence[UpdateRecord], epoch: int | None = None) -> Sequence[UpdateRecord]:
    """Those of one epoch, by default of the newest: the time between epochs, when the run stood still, is no pace."""
    newest = records[-1].epoch if records and epoch is None else epoch
    return [r for r in records if r.epoch == newest]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _span(records: Sequence[UpdateRecord]) -> float:
    return records[-1].time - records[0].time if len(records) > 1 else 0.0


def _rate(records: Sequence[UpdateRecord]) -> float | None:
    """Updates per second."""
    span = _span(records)
    return (records[-1].version - records[0].version) / span if span > 0 else None


def _per_second(records: Sequence[UpdateRecord], counts: Sequence[int]) -> float | None:
    """Rate of `counts`, of which the first record's came before the measured time began."""
    span = _span(records)
    return sum(counts[1:]) / span if span > 0 else None


def duration(seconds: float | None) -> str:
    """As text, such as "2 h 01 min"; "?" for None, and for what is no duration, as after a clock was set back."""
    if seconds is None or not 0 <= seconds < math.inf:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def number(value: float | None, digits: int = 3) -> str:
    """With `digits` significant digits; "?" for None."""
    return "?" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def line(p: Progress) -> str:
    """All of it in one line."""
    return (
        f"update {p.version}/{p.target}  loss {number(p.loss)}  weight of rp {number(p.weight_rp)}  "
        f"staleness {number(p.staleness)}  {number(p.samples_per_second)} samples/s  "
        f"{number(p.steps_per_second)} inner steps/s  workers {p.workers}/{p.workers_wanted}  "
        f"{duration(p.seconds_left)} left"
    )


def worker_counts(fleet: FleetStatus, separator: str) -> str:
    """Counts of workers by state, without those that are 0."""
    states = ("starting", "running", "draining", "abandoned")
    return separator.join(f"{count} {state}" for state in states if (count := getattr(fleet, state)))
