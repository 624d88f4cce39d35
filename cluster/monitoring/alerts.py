"""Alerts on a run without Prometheus: those that a single snapshot suffices for, and what a Prometheus fires, if any.

`deploy/monitoring/rules/alerts.yml` has all alerts, with their waiting times; the thresholds here are the same.
"""

import json
import urllib.parse
from collections.abc import Iterator
from http.client import HTTPException

from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.progress import of_epoch
from cluster.monitoring.scrape import DIRECT
from cluster.monitoring.snapshot import LearnerSnapshot, Snapshot

STALLED_INTERVALS, STALLED_S = 5, 600.0  # average intervals between updates; at least so many seconds
STALE_FRACTION, BROKEN_FRACTION = 0.2, 0.02
WORKERS_FRACTION = 0.9
DISK_BYTES = 1e9
CLAMP_FRACTION = 0.8


def alerts(snapshot: Snapshot) -> list[str]:
    """A sentence for each alert; none for a healthy run and for one that has ended."""
    return [
        *_silence(snapshot),
        *_progress(snapshot),
        *_samples(snapshot.learner),
        *_workers(snapshot.fleet.status),
        *_disk(snapshot.learner),
    ]


def _silence(snapshot: Snapshot) -> Iterator[str]:
    for name, process in (("learner", snapshot.learner), ("fleet manager", snapshot.fleet)):
        if process is snapshot.learner and snapshot.learner.foreign:
            yield "another run responds where the learner was announced: it crashed, and its target file is stale"
        elif process.announced and not process.responding:
            yield f"the {name} is not responding: it is being restarted, or it crashed"


def _progress(snapshot: Snapshot) -> Iterator[str]:
    learner, last = snapshot.learner, snapshot.learner.last_update_time
    if learner.version is None or learner.target_updates is None:
        return
    limit = max(STALLED_S, STALLED_INTERVALS * _interval(snapshot))
    if last and learner.version < learner.target_updates and snapshot.now - last > limit:
        yield f"no outer update for {snapshot.now - last:.0f} s"
    clamp, loss = learner.loss_clamp, snapshot.history[-1].loss if snapshot.history else 0.0
    if clamp and loss > CLAMP_FRACTION * clamp:
        yield f"the outer loss is {loss:.3g}, near the clamp of {clamp:g}: the learned optimizer diverges"


def _interval(snapshot: Snapshot) -> float:
    """Average seconds between recent updates of the newest epoch."""
    recent = of_epoch(snapshot.history[-50:])
    return (recent[-1].time - recent[0].time) / (len(recent) - 1) if len(recent) > 1 else 0.0


def _samples(learner: LearnerSnapshot) -> Iterator[str]:
    total = sum(learner.verdicts.values())
    for verdict, limit in (
        ("stale", STALE_FRACTION),
        ("non_finite", BROKEN_FRACTION),
        ("malformed", BROKEN_FRACTION),
    ):
        fraction = learner.verdicts.get(verdict, 0) / max(total, 1)
        if fraction > limit:
            yield f"{fraction:.0%} of the samples are {verdict.replace('_', '-')}"


def _workers(fleet: FleetStatus) -> Iterator[str]:
    if fleet.running < WORKERS_FRACTION * fleet.target:
        yield f"{fleet.running} of {fleet.target} workers are running"
    if fleet.abandoned:
        yield f"{fleet.abandoned} workers failed too often and are no longer restarted"


def _disk(learner: LearnerSnapshot) -> Iterator[str]:
    version, saved = learner.version, learner.checkpoint_version
    if version and saved and version > saved + 1:
        yield f"version {version:.0f} is not on disk; the last durable version is {saved:.0f}"
    free = learner.disk_free_bytes
    if free is not None and free < DISK_BYTES:
        yield f"only {free / 1e6:.0f} MB of disk space are free for the run directory"


def firing(url: str, run: str, timeout: float = 1.0) -> list[str] | None:
    """Names of the alerts that the Prometheus at `url` fires for a run; None if it does not respond."""
    query = urllib.parse.urlencode({"query": f'ALERTS{{alertname=~"Outertrain.*", alertstate="firing", run="{run}"}}'})
    try:
        with DIRECT.open(f"{url}/api/v1/query?{query}", timeout=timeout) as answer:
            found = json.load(answer)["data"]["result"]
        return sorted({one["metric"]["alertname"] for one in found})
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return None
