"""The status of a run, from its directory and the endpoints that it has announced there: `outertrain status`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.monitoring.progress import Progress, duration, number, summarise, worker_counts
from cluster.monitoring.snapshot import FleetSnapshot, take_snapshot
from cluster.runs import best
from cluster.runs.best import Best
from cluster.runs.directory import RunDirectory
from common.errors import last_line
from learner.history import read_newest

NEWEST = 100  # updates that are read from the end of the history


class Status(NamedTuple):
    """Where a run stands. Times are in seconds; None: not known."""

    run: str
    path: str
    state: str  # "running", "finished" or "stopped"
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
    """Reads the end of the history and scrapes both endpoints. Raises UserError for an unreadable configuration."""
    snapshot, updates = take_snapshot(run, read_newest(run.path, NEWEST)), run.config().outer.updates
    learner, version = snapshot.learner, snapshot.version
    saved = learner.checkpoint_time
    return Status(
        run=run.name,
        path=str(run.path),
        state="running" if learner.responding else "finished" if version >= updates else "stopped",
        progress=summarise(snapshot.history, version, updates, snapshot.fleet.status, snapshot.now),
        epoch=snapshot.history[-1].epoch if snapshot.history else None,
        verdicts=learner.verdicts,
        fleet=snapshot.fleet,
        last_failure=run.last_failure(),
        checkpoint_version=learner.checkpoint_version,
        checkpoint_age=None if saved is None else snapshot.now - saved,
        checkpoint_failures=learner.checkpoint_failures,
        best=best.read(run),
    )


def text(status: Status) -> str:
    """The status as lines of text."""
    progress, fleet = status.progress, status.fleet.status
    lines = [
        f"{status.run}: {status.state}, update {progress.version} of {progress.target}, epoch {status.epoch or '?'}",
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
        f"  workers: {fleet.target} requested, {worker_counts(fleet, ', ') or 'none running'}",
        *(
            f"    {node}: {count}, {fleet.pinned.get(node, 0)} pinned to a core each"
            for node, count in sorted(fleet.nodes.items())
        ),
        f"  samples: {samples or 'none'}",
        f"  checkpoint: version {number(status.checkpoint_version)}, {duration(status.checkpoint_age)} old, "
        f"{number(status.checkpoint_failures)} failures",
    ]
    if status.last_failure:
        lines.append(f"  last worker failure: {last_line(status.last_failure)}")
    return "\n".join(lines)
