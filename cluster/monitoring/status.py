"""`outertrain status`: where a run stands, from its directory and the endpoints that it has announced there."""

from typing import Any

from cluster.monitoring.dashboard import fleet_of, observe
from cluster.monitoring.progress import duration, figure, summarise
from cluster.runs.directory import RunDirectory
from common.errors import last_line


def state_of(run: RunDirectory) -> dict[str, Any]:
    """JSON-able; the numbers are those that Prometheus reads, and the newest lines of the history."""
    moment, config = observe(run), run.config()
    learner, fleet = moment.learner, fleet_of(moment)
    last = moment.history[-1] if moment.history else None
    version = int(learner.get("outertrain_version") or (last.version if last else 0))
    progress = summarise(moment.history[-100:], version, config.outer.updates, fleet, moment.now)
    saved = learner.get("outertrain_checkpoint_timestamp_seconds")
    return {
        "run": run.name,
        "path": str(run.path),
        "state": "running" if learner.values else "finished" if version >= config.outer.updates else "stopped",
        **progress._asdict(),
        "epoch": last.epoch if last else None,
        "verdicts": {k: int(v) for k, v in learner.by("outertrain_samples_total", "verdict").items()},
        "fleet": fleet,
        "nodes": {node: int(n) for node, n in moment.fleet.by("outertrain_node_workers", "node").items()},
        "last_failure": run.last_failure(),
        "checkpoint_version": learner.get("outertrain_checkpoint_version"),
        "checkpoint_age": None if saved is None else moment.now - saved,
        "checkpoint_failures": learner.get("outertrain_checkpoint_failures_total"),
    }


def text(state: dict[str, Any]) -> str:
    """The same for a person."""
    fleet = {k: v for k, v in state["fleet"].items() if k != "target" and v}
    lines = [
        f"{state['run']}: {state['state']}, update {state['version']} of {state['target']}, epoch {state['epoch'] or '?'}",
        f"  loss {figure(state['loss'])}, weight of rp {figure(state['weight_rp'])}, staleness {figure(state['staleness'])}",
        f"  directory {state['path']}",
    ]
    if state["state"] == "running":
        rates = f"{figure(state['samples_per_second'])} samples/s, {figure(state['steps_per_second'])} inner steps/s"
        workers = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in fleet.items()) or "none"
        lines += [
            f"  {rates}, {duration(state['seconds_left'])} left",
            f"  workers: {state['fleet']['target']} asked for, {workers}",
            *(f"    {node}: {count}" for node, count in sorted(state["nodes"].items())),
            "  samples: "
            + (", ".join(f"{n} {v.replace('_', ' ')}" for v, n in state["verdicts"].items() if n) or "none"),
            f"  checkpoint: version {figure(state['checkpoint_version'])}, {duration(state['checkpoint_age'])} old, "
            f"{figure(state['checkpoint_failures'])} failures",
        ]
        if state["last_failure"]:
            lines.append(f"  last failure of a worker: {last_line(state['last_failure'])}")
    return "\n".join(lines)
