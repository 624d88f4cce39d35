"""The status of a run, from its directory and the endpoints that it has announced there: `outertrain status`."""

import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.monitoring.progress import Progress, duration, number, summarise, worker_counts
from cluster.monitoring.snapshot import FleetSnapshot, Snapshot, take_snapshot
from cluster.runs import best
from cluster.runs.best import Best
from cluster.runs.directory import RunDirectory
from common import files
from common.errors import UserError, last_line
from common.update_record import expected_updates
from learner.history import read_newest
from learner.lineage import newest_host

NEWEST = 100  # updates that are read from the end of the history


class Status(NamedTuple):
    """Where a run stands. Times are in seconds; None: not known."""

    run: str
    path: str
    state: str  # "running", "finished", "stopped", or "unknown": `reason` says why
    reason: str | None
    progress: Progress
    epoch: int | None
    verdicts: Mapping[str, int]
    fleet: FleetSnapshot
    last_failure: str | None  # the traceback of the worker that failed last
    checkpoint_version: float | None
    checkpoint_age: float | None
    checkpoint_failures: float | None
    best: Best | None  # of the versions that were evaluated during training

    def to_json(self) -> dict[str, Any]:
        """For `--json`; states of workers have the labels of the metric."""
        fields = self._asdict()
        progress, fleet = fields.pop("progress"), self.fleet.status
        states = {
            "starting": fleet.starting,
            "running": fleet.running,
            "leaving": fleet.draining,
            "given_up": fleet.abandoned,
        }
        workers = {"target": fleet.target, **(states if self.fleet.responding else {})}
        fields["best"] = None if self.best is None else self.best.to_json()
        json: dict[str, Any] = fields | progress._asdict() | {"fleet": workers, "nodes": dict(fleet.nodes)}
        json["pinned"] = dict(fleet.pinned)
        return json


def status_of(run: RunDirectory) -> Status:
    """Reads the end of the history and scrapes both endpoints.

    Raises:
      UserError: the configuration or the history cannot be read.
    """
    config = run.config().outer
    try:
        snapshot = take_snapshot(run, read_newest(run.path, NEWEST))
    except OSError as error:
        raise UserError(f"the history of the run {run.name!r} cannot be read: {files.explain(error)}") from None
    learner, version = snapshot.learner, snapshot.version
    updates = expected_updates(config, snapshot.history[-1] if snapshot.history else None)
    saved = learner.checkpoint_time
    progress = summarise(snapshot.history, version, updates, snapshot.fleet.status, snapshot.now, snapshot.epoch)
    if not learner.responding:  # rates of the past say nothing about now
        progress = progress._replace(samples_per_second=None, steps_per_second=None, seconds_left=None)
    if (snapshot.fleet.announced or learner.responding) and not snapshot.fleet.responding:
        progress = progress._replace(workers=None, workers_wanted=None)
    state = "running" if learner.responding else "finished" if version >= updates else "stopped"
    reason = doubt(run, snapshot) if state == "stopped" else None
    return Status(
        run=run.name,
        path=str(run.path),
        state=state if reason is None else "unknown",
        reason=reason,
        progress=progress,
        epoch=snapshot.epoch,
        verdicts=learner.verdicts,
        fleet=snapshot.fleet,
        last_failure=run.last_failure(),
        checkpoint_version=learner.checkpoint_version,
        checkpoint_age=None if saved is None else snapshot.now - saved,
        checkpoint_failures=learner.checkpoint_failures,
        best=best.read(run),
    )


def doubt(run: RunDirectory, snapshot: Snapshot) -> str | None:
    """Why it cannot be known whether the learner runs; None where it is known."""
    if not snapshot.learner.announced:
        return None
    if snapshot.learner.foreign:
        return "another run responds at the address that its learner announced: the target file is stale"
    host, here = newest_host(run.epochs), socket.gethostname()
    if host not in (None, here):
        return f"its learner was started on {host}, and does not respond to {here}: ask there"
    return "its learner does not respond: it is being started or restarted, or it crashed"


def text(status: Status) -> str:
    """The status as lines of text."""
    progress = status.progress
    lines = [
        f"{status.run}: {status.state}, update {progress.version} of {progress.target}, epoch {status.epoch or '?'}",
        *([] if status.reason is None else [f"  whether it runs is not known: {status.reason}"]),
        f"  loss {number(progress.loss)}, weight of rp {number(progress.weight_rp)}, "
        f"staleness {number(progress.staleness)}",
        *([] if status.best is None else [f"  best: {status.best.sentence()}"]),
        f"  directory {status.path}",
    ]
    if status.state != "running":
        return "\n".join(lines)
    rates = f"{number(progress.samples_per_second)} samples/s, {number(progress.steps_per_second)} inner steps/s"
    samples = ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in status.verdicts.items() if count)
    lines += [
        f"  {rates}, {duration(progress.seconds_left)} left",
        *_workers(status.fleet),
        f"  samples: {samples or 'none'}",
        f"  checkpoint: version {number(status.checkpoint_version)}, {duration(status.checkpoint_age)} old, "
        f"{number(status.checkpoint_failures)} failures",
    ]
    if status.last_failure:
        lines.append(f"  last worker failure: {last_line(status.last_failure)}")
    return "\n".join(lines)


def _workers(fleet: FleetSnapshot) -> list[str]:
    if not fleet.responding:
        return ["  workers: not known, the fleet manager does not respond"]
    counts = worker_counts(fleet.status, ", ") or "none running"
    nodes = (
        f"    {node}: {count}, {fleet.status.pinned.get(node, 0)} pinned to a core each"
        for node, count in sorted(fleet.status.nodes.items())
    )
    return [f"  workers: {fleet.status.target} requested, {counts}", *nodes]
