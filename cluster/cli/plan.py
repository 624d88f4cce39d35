"""`outertrain plan`: time and cost of a run before it is started."""

import json
import math
from typing import Any, NamedTuple

import click

from cluster.cli import console, options
from cluster.planning.plan import Basis, Plan, aggregators_of, make_plan
from cluster.planning.scenario import Failures
from cluster.report.table import aligned
from cluster.runs.open import DEFAULT
from common import configfile, runtime
from common.config import Config
from common.errors import UserError

MOST_WORKERS = 100_000  # a minute of simulation


@click.command()
@click.argument("config", metavar="[CONFIG]", required=False)
@options.overrides("workers", "updates")
@click.option(
    "--step-seconds", type=float, metavar="S", help="Seconds of one inner step of a pair (default: measured)."
)
@click.option(
    "--worker-mtbf", type=float, metavar="HOURS", help="Mean time between failures of a worker (default: none)."
)
@click.option(
    "--learner-mtbf", type=float, metavar="HOURS", help="Mean time between failures of the learner (default: none)."
)
@click.option(
    "--cores-per-node", type=int, default=32, metavar="N", help="Workers of one aggregator, if used (default: 32)."
)
@options.as_json
def command(
    *, config: str | None, overrides: tuple[str, ...], step_seconds: float | None, as_json: bool, **assumed: Any
) -> None:
    """Print time and cost of a run before it is started.

    CONFIG is a TOML file or a preset (default: quickstart). The time of an inner step and of the learner's work is
    measured on this machine; the workers' cores are taken to be like its cores.
    """
    settings = configfile.load(config or DEFAULT, overrides)
    if settings.workers.count > MOST_WORKERS:
        raise UserError(
            f"workers.count = {settings.workers.count}: a plan simulates each worker, at most {MOST_WORKERS:,}"
        )
    basis = measure(settings, step_seconds, Assumed(**assumed).checked())
    plan = make_plan(settings, basis)
    print(json.dumps(facts(plan, basis)) if as_json else text(plan, basis, measured=step_seconds is None))


class Assumed(NamedTuple):
    """What the command takes on trust."""

    worker_mtbf: float | None  # hours
    learner_mtbf: float | None  # hours
    cores_per_node: int

    def checked(self) -> "Assumed":
        """Raises UserError for impossible values."""
        for option, hours in (("--worker-mtbf", self.worker_mtbf), ("--learner-mtbf", self.learner_mtbf)):
            if hours is not None and not hours > 0:
                raise UserError(f"{option} {hours:g} is no time between failures: give hours, more than 0")
        if self.cores_per_node < 1:
            raise UserError(f"--cores-per-node {self.cores_per_node} leaves no worker on a node: give at least 1")
        return self

    def failures(self) -> Failures:
        worker, learner = (math.inf if h is None else 3600.0 * h for h in (self.worker_mtbf, self.learner_mtbf))
        return Failures(worker_mtbf=worker, learner_mtbf=learner)


def measure(config: Config, step_seconds: float | None, assumed: Assumed) -> Basis:
    """Measures what was not given. Raises UserError where the data that this takes are missing."""
    if step_seconds is not None and not 0 < step_seconds < float("inf"):
        raise UserError(f"--step-seconds {step_seconds:g} is no duration: give seconds, more than 0")
    runtime.prepare(pin=False)
    with console.make() as show:
        each: tuple[float, ...] = ()
        if step_seconds is None:
            show.say("measuring the inner step of this machine (--step-seconds skips this)")
            each = tuple(measured_step(member.config) for member in config.members)
            step_seconds = sum(member.weight * seconds for member, seconds in zip(config.members, each))
        from cluster.planning.costs import learner_costs

        clients = aggregators_of(config, assumed.cores_per_node) or config.workers.count
        costs, failures = learner_costs(config, clients), assumed.failures()
        return Basis(step_seconds, costs, failures, assumed.cores_per_node, each if config.mixture else ())


def measured_step(config: Config) -> float:
    from workers.bench.steps import pair_step_seconds

    try:
        return pair_step_seconds(config)
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; the step time cannot be measured without the data: give it by --step-seconds, or measure with "
            "made-up images of the same size (--set dataset.source=procedural --set dataset.image_size=32)"
        ) from None


def facts(plan: Plan, basis: Basis) -> dict[str, Any]:
    """What --json prints."""
    return {
        "workers": plan.workers,
        "batch_samples": plan.batch,
        "updates": plan.updates,
        "step_seconds": basis.step_seconds,
        "exchange_seconds": basis.costs.exchange,
        "update_seconds": basis.costs.update,
        "capacity_samples_per_second": plan.capacity,
        "hours": plan.hours,
        "core_hours": plan.core_hours,
        "core_seconds_per_update": plan.core_seconds_per_update,
        "moments": [
            {
                "version": m.version,
                "window": m.window,
                "sample_seconds": m.sample_seconds,
                "updates_per_hour": 3600.0 / m.outcome.seconds_per_update,
                "staleness": m.outcome.staleness,
                "exchange_99_seconds": m.outcome.exchange_99,
                "learner_waits": m.outcome.learner_waits,
                "goodput": m.outcome.goodput,
                "rejected": m.outcome.rejected,
                "samples_per_exchange": m.outcome.group,
                "most_workers": m.most_workers,
                "learner_failure_seconds": m.learner_failure_seconds,
            }
            for m in plan.moments
        ],
    }


def text(plan: Plan, basis: Basis, *, measured: bool) -> str:
    """The plan for people."""
    head = ("from update", "window", "sample", "updates/hour", "staleness", "learner waits", "goodput", "most workers")
    rows = [
        (
            f"{m.version:,}",
            f"{m.window:,}",
            seconds(m.sample_seconds),
            f"{3600.0 / m.outcome.seconds_per_update:,.4g}",
            f"{m.outcome.staleness:.3g}",
            f"{m.outcome.learner_waits:.1%}",
            f"{m.outcome.goodput:.1%}",
            f"{m.most_workers:,}",
        )
        for m in plan.moments
    ]
    origin = "measured on this machine" if measured else "as given"
    lines = [
        f"{plan.updates:,} updates of {plan.batch} samples, {plan.workers:,} workers: {seconds(3600 * plan.hours)}, "
        f"{plan.core_hours:,.4g} core hours, {plan.core_seconds_per_update:,.4g} core seconds per update",
        f"inner step of a pair: {1000 * basis.step_seconds:.4g} ms, {origin}; the learner takes up to "
        f"{plan.capacity:,.0f} samples per second",
    ]
    if basis.failures.learner_mtbf < math.inf:
        lost = [m.learner_failure_seconds for m in plan.moments]
        lines.append(f"a failure of the learner costs {seconds(min(lost))} to {seconds(max(lost))}")
    return "\n".join([*lines, "", *aligned([head, *rows])])


def seconds(value: float) -> str:
    """A duration in its natural unit."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("min", 60.0)):
        if value >= 2 * size:
            return f"{value / size:,.3g} {unit}"
    return f"{value:.3g} s"
