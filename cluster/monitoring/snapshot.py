"""A snapshot of a run: its history, and what the endpoints of learner and fleet report at one moment."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.scrape import Scrape, scrape
from cluster.runs.directory import RunDirectory
from common.update_record import UpdateRecord
from learner.lineage import identity

_GAUGES = {  # field of LearnerSnapshot -> metric
    "epoch": "outertrain_epoch",
    "version": "outertrain_version",
    "target_updates": "outertrain_target_updates",
    "batch_samples": "outertrain_batch_samples",
    "batch_target_samples": "outertrain_batch_target_samples",
    "last_update_time": "outertrain_last_update_timestamp_seconds",
    "loss_clamp": "outertrain_outer_loss_clamp",
    "checkpoint_version": "outertrain_checkpoint_version",
    "checkpoint_time": "outertrain_checkpoint_timestamp_seconds",
    "checkpoint_failures": "outertrain_checkpoint_failures_total",
    "disk_free_bytes": "outertrain_disk_free_bytes",
}


class LearnerSnapshot(NamedTuple):
    """What the learner reports; times are unix seconds. None: not reported."""

    announced: bool = False  # it has written a target file, which it removes when it exits normally
    responding: bool = False
    foreign: bool = False  # what responds at the announced address is not this run's learner
    identity: str | None = None  # of its run
    epoch: float | None = None
    version: float | None = None
    target_updates: float | None = None
    batch_samples: float | None = None
    batch_target_samples: float | None = None
    last_update_time: float | None = None
    loss_clamp: float | None = None
    checkpoint_version: float | None = None
    checkpoint_time: float | None = None
    checkpoint_failures: float | None = None
    disk_free_bytes: float | None = None
    verdicts: Mapping[str, int] = {}  # samples received since it started


class FleetSnapshot(NamedTuple):
    """What the fleet manager reports."""

    announced: bool = False
    responding: bool = False
    status: FleetStatus = FleetStatus(target=0)


class Snapshot(NamedTuple):
    """All that is known of a run at one moment."""

    history: Sequence[UpdateRecord]  # or its newest part, oldest first
    learner: LearnerSnapshot
    fleet: FleetSnapshot
    now: float  # unix seconds

    @property
    def version(self) -> int:
        """The learner's, or that of the newest update."""
        return int(self.learner.version or (self.history[-1].version if self.history else 0))

    @property
    def epoch(self) -> int | None:
        """The learner's, or that of the newest update; None where there is neither."""
        known = self.learner.epoch or (self.history[-1].epoch if self.history else None)
        return None if known is None else int(known)


def take_snapshot(run: RunDirectory, history: Sequence[UpdateRecord]) -> Snapshot:
    """Scrapes both endpoints of the run."""
    learner, fleet = learner_in(scrape(run, "learner")), fleet_in(scrape(run, "fleet"))
    if learner.responding and not belongs(learner, history, identity(run.epochs)):
        learner, fleet = LearnerSnapshot(announced=True, foreign=True), FleetSnapshot(announced=fleet.announced)
    return Snapshot(history, learner, fleet, time.time())


def belongs(learner: LearnerSnapshot, history: Sequence[UpdateRecord], run: str) -> bool:
    """Whether an endpoint is that of the learner that wrote a history, which was read before.

    A target file that a crash left behind may name a port that the learner of another run has got since. A learner
    that publishes no identity, of an older version, is told by its numbers.

    Args:
      run: the identity of the run (`learner.lineage.identity`).
    """
    if learner.identity and run:
        return learner.identity == run
    if not history or learner.epoch is None or learner.version is None:
        return True
    newest = history[-1]
    if (learner.epoch, learner.version) < (newest.epoch, newest.version):
        return False
    times = {(record.epoch, record.version): record.time for record in history}
    known = times.get((int(learner.epoch), int(learner.version)))
    return not learner.last_update_time or known is None or abs(known - learner.last_update_time) < 1


def learner_in(scraped: Scrape) -> LearnerSnapshot:
    """What the scraped endpoint of a learner reports."""
    gauges: dict[str, Any] = {field: scraped.get(metric) for field, metric in _GAUGES.items()}
    return LearnerSnapshot(
        announced=scraped.announced,
        responding=scraped.samples is not None,
        identity=scraped.label("outertrain_run_info", "identity"),
        **gauges,
        verdicts=_counts(scraped, "outertrain_samples_total", "verdict"),
    )


def fleet_in(scraped: Scrape) -> FleetSnapshot:
    """What the scraped endpoint of a fleet manager reports."""
    states = _counts(scraped, "outertrain_workers", "state")
    status = FleetStatus(
        target=int(scraped.get("outertrain_workers_target") or 0),
        starting=states.get("starting", 0),
        running=states.get("running", 0),
        draining=states.get("leaving", 0),
        abandoned=states.get("given_up", 0),
        nodes=_counts(scraped, "outertrain_node_workers", "node"),
        pinned=_counts(scraped, "outertrain_node_workers_pinned", "node"),
    )
    return FleetSnapshot(scraped.announced, scraped.samples is not None, status)


def _counts(scraped: Scrape, name: str, label: str) -> dict[str, int]:
    return {key: int(value) for key, value in scraped.by(name, label).items()}
