"""What is wrong with a run right now, for someone without Prometheus: the alerts that one moment suffices for.

`deploy/monitoring/rules/alerts.yml` has all of them, with their waiting times; the thresholds here are the same.
"""

import json
import urllib.parse
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from typing import NamedTuple

from cluster.monitoring.scrape import DIRECT, Readings
from common.update_record import UpdateRecord

STALLED_INTERVALS, STALLED_SECONDS = 5, 600.0
STALE_SHARE, BROKEN_SHARE = 0.2, 0.02
WORKERS_SHARE = 0.9
DISK_BYTES = 1e9
CLAMP_SHARE = 0.8


class Moment(NamedTuple):
    """What is known of a run at one time."""

    history: Sequence[UpdateRecord]
    learner: Readings
    fleet: Readings
    now: float  # unix seconds


def alarms(moment: Moment) -> list[str]:
    """A sentence each; none: all is well, or the run has ended."""
    return [
        *_silence(moment),
        *_progress(moment),
        *_samples(moment.learner),
        *_workers(moment.fleet),
        *_disk(moment.learner),
    ]


def _silence(moment: Moment) -> Iterator[str]:
    for role, readings in (("learner", moment.learner), ("fleet", moment.fleet)):
        if readings.found and readings.values is None:
            yield f"the {role} does not answer: it is being restarted, or it died"


def _progress(moment: Moment) -> Iterator[str]:
    version, target = (moment.learner.get(f"outertrain_{name}") for name in ("version", "target_updates"))
    last = moment.learner.get("outertrain_last_update_timestamp_seconds")
    if version is None or target is None:
        return
    if last and version < target and moment.now - last > max(STALLED_SECONDS, STALLED_INTERVALS * _interval(moment)):
        yield f"no outer update for {moment.now - last:.0f} s"
    clamp = moment.learner.get("outertrain_outer_loss_clamp")
    if clamp and moment.history and moment.history[-1].loss > CLAMP_SHARE * clamp:
        yield f"the outer loss is {moment.history[-1].loss:.3g}, near the clamp of {clamp:g}: the optimizer diverges"


def _interval(moment: Moment) -> float:
    """Seconds between recent updates."""
    recent = moment.history[-50:]
    return (recent[-1].time - recent[0].time) / (len(recent) - 1) if len(recent) > 1 else 0.0


def _samples(learner: Readings) -> Iterator[str]:
    verdicts = learner.by("outertrain_samples_total", "verdict")
    total = sum(verdicts.values())
    for verdict, limit in (("stale", STALE_SHARE), ("non_finite", BROKEN_SHARE), ("malformed", BROKEN_SHARE)):
        share = verdicts.get(verdict, 0.0) / max(total, 1.0)
        if share > limit:
            yield f"{share:.0%} of the samples are {verdict.replace('_', ' ')}"


def _workers(fleet: Readings) -> Iterator[str]:
    states, target = fleet.by("outertrain_workers", "state"), fleet.get("outertrain_workers_target")
    if target and states.get("running", 0.0) < WORKERS_SHARE * target:
        yield f"{states.get('running', 0.0):.0f} of {target:.0f} workers run"
    if states.get("given_up"):
        yield f"{states['given_up']:.0f} workers failed so often that they are not started any more"


def _disk(learner: Readings) -> Iterator[str]:
    version, saved = (learner.get(f"outertrain_{name}version") for name in ("", "checkpoint_"))
    if version and saved and version > saved + 1:
        yield f"version {version:.0f} is not on disk, the last durable one is {saved:.0f}"
    free = learner.get("outertrain_disk_free_bytes")
    if free is not None and free < DISK_BYTES:
        yield f"only {free / 1e6:.0f} MB are free where the run directory lies"


def firing(url: str, run: str, timeout: float = 1.0) -> list[str] | None:
    """The summaries of what Prometheus itself fires for a run; None if no Prometheus answers."""
    query = urllib.parse.urlencode({"query": f'ALERTS{{alertname=~"Outertrain.*", alertstate="firing", run="{run}"}}'})
    try:
        with DIRECT.open(f"{url}/api/v1/query?{query}", timeout=timeout) as answer:
            found = json.load(answer)["data"]["result"]
        return sorted({one["metric"]["alertname"] for one in found})
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return None
