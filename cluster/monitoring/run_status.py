"""The state of a run, as its processes report it to the command that started them."""

from collections.abc import Sequence
from typing import NamedTuple

from cluster.monitoring.fleet_status import FleetStatus
from common.update_record import UpdateRecord
from learner.status import LearnerStatus


class LearnerReport(NamedTuple):
    """What the learner's process reports."""

    learner: LearnerStatus
    records: Sequence[UpdateRecord]  # the newest of the history, oldest first
    metrics_url: str


class RunStatus(NamedTuple):
    """A run at one moment."""

    learner: LearnerStatus
    records: Sequence[UpdateRecord]  # the newest of the history, oldest first
    fleet: FleetStatus
