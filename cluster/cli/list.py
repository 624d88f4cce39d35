"""`outertrain list`: lists the runs."""

import json

import click

from cluster.cli import options
from cluster.monitoring.status import Status, status_of
from cluster.runs import directory
from common.errors import UserError, printable


@click.command()
@options.as_json
@click.option("--cluster", is_flag=True, help="List the runs on the Ray cluster, wherever their directories are.")
def command(as_json: bool, cluster: bool) -> None:
    """List the runs in $OUTERTRAIN_RUNS (default: the directory `runs`), with their state."""
    found = on_cluster() if cluster else [status_or_reason(name) for name in directory.names()]
    if as_json:
        print(json.dumps([one if isinstance(one, dict) else one.to_json() for one in found]))
        return
    for status in found:
        if isinstance(status, dict):
            line = f"{status['run']:30}  {status['state']:9}  {status['reason']}"
        else:
            at, workers = status.progress, "?" if status.progress.workers is None else status.progress.workers
            line = f"{status.run:30}  {status.state:9}  update {at.version}/{at.target}  workers {workers}"
        print(printable(line))


def status_or_reason(name: str) -> Status | dict[str, str]:
    """The status of a run, or why it cannot be read: one such run does not hide the others."""
    try:
        return status_of(directory.find(name))
    except (UserError, OSError, ValueError) as error:  # whatever is wrong with its files
        return unknown(name, str(error))


def on_cluster() -> list[Status | dict[str, str]]:
    """The runs on the Ray cluster, as their own nodes see them."""
    from cluster.launchers import ray_cluster, remote_runs

    with ray_cluster.connected():
        found = remote_runs.statuses()
    return [unknown(name, one) if isinstance(one, str) else one for name, one in found.items()]


def unknown(name: str, reason: str) -> dict[str, str]:
    return {"run": name, "state": "unknown", "reason": reason}
