"""The dashboard of someone without Grafana: a run's charts, workers and alarms in the terminal.

It reads the run directory and the endpoints that the run has announced there, so it needs neither Ray nor Prometheus,
shows the same numbers as both, and can be started and ended at any time.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.monitoring import scrape
from cluster.monitoring.alerts import Moment, alarms, firing
from cluster.monitoring.progress import duration, figure, summarise
from cluster.monitoring.terminal_chart import chart
from cluster.runs.directory import RunDirectory
from common.update_record import UpdateRecord
from learner.history import read_history

SECONDS = 2.0
PROMETHEUS_VARIABLE = "OUTERTRAIN_PROMETHEUS"
LINES = ("cyan", "yellow", "green")


Value = Callable[[UpdateRecord], float | None]


class Chart(NamedTuple):
    title: str
    values: tuple[Value, ...]
    names: tuple[str, ...] = ()
    log: bool = False
    rate: bool = False  # inner steps per second, from one update to the next


CHARTS = (  # the first four are for narrow terminals too
    Chart("outer loss (nats)", (lambda r: r.loss,)),
    Chart("merge weight of rp", (lambda r: r.weight_rp.mean,)),
    Chart("staleness (versions)", (lambda r: r.staleness.mean,)),
    Chart("inner steps per second", (), rate=True),
    Chart("variance of one pair, median", (lambda r: r.var_rp.q50, lambda r: r.var_es.q50), ("rp", "es"), log=True),
    Chart(
        "window (inner steps)",
        (lambda r: r.windows.max, lambda r: r.windows.mean, lambda r: r.windows.min),
        ("longest", "mean", "shortest"),
    ),
)


def watch(run: RunDirectory, *, once: bool = False, console: Console | None = None) -> None:
    """Redraws until Ctrl-C; `once` prints one frame, for scripts and small terminals."""
    console = console or Console()
    if once:
        console.print(frame(run.name, observe(run), console.width, 50))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(frame(run.name, observe(run), console.width, console.height), refresh=True)
            time.sleep(SECONDS)


def observe(run: RunDirectory) -> Moment:
    learner, fleet = (scrape.read(run, role) for role in ("learner", "fleet"))
    return Moment(read_history(run.path), learner, fleet, time.time())


def frame(name: str, moment: Moment, width: int, height: int) -> RenderableType:
    """One picture of a run, for a terminal of this size."""
    columns = 3 if width >= 150 else 2
    shown = CHARTS if columns == 3 else CHARTS[:4]
    rows = -(-len(shown) // columns)
    chart_height = max(3, min(9, (height - 12) // rows - 2))
    grid = Table.grid(padding=(0, 1))
    cell = (width - (columns - 1)) // columns - 1
    for start in range(0, len(shown), columns):
        grid.add_row(*(draw(c, moment.history, cell, chart_height) for c in shown[start : start + columns]))
    return Group(header(name, moment), grid, workers(moment, width), verdicts(moment), *warnings(name, moment))


def header(name: str, moment: Moment) -> Text:
    version, target, epoch = (moment.learner.get(f"outertrain_{key}") for key in ("version", "target_updates", "epoch"))
    last = moment.history[-1].version if moment.history else 0
    state = "runs" if moment.learner.values else "no answer" if moment.learner.found else "not running"
    goal = int(target or last)
    p = summarise(moment.history[-100:], int(version or last), goal, fleet_of(moment), moment.now)
    left = f"   left {duration(p.seconds_left)}" if moment.learner.values and p.version < goal else ""
    text = Text.assemble((name, "bold"), f"   {state}   update {p.version} of {goal}", left)
    text.append(f"   loss {figure(p.loss)}   {figure(p.samples_per_second)} samples/s")
    text.append(f"   epoch {epoch:.0f}" if epoch else "")
    text.append("   (charts: over all updates)", "dim")
    return text


def fleet_of(moment: Moment) -> dict[str, int]:
    states = moment.fleet.by("outertrain_workers", "state")
    target = moment.fleet.get("outertrain_workers_target") or 0.0
    return {"target": int(target), **{state: int(count) for state, count in states.items()}}


def draw(one: Chart, history: Sequence[UpdateRecord], width: int, height: int) -> Text:
    lines = [step_rate(history)] if one.rate else [series(history, value) for value in one.values]
    newest = [line[-1] if line else math.nan for line in lines]
    text = Text(no_wrap=True, overflow="crop")
    text.append(one.title, "bold")
    for number, value in enumerate(newest):
        label = one.names[number] + " " if one.names else ""
        text.append(f"  {label}{figure(None if math.isnan(value) else value)}", LINES[number])
    for row in chart(lines, width, height, one.log):
        text.append("\n")
        for cell in row:
            styled = len(cell) == 2
            text.append(cell[-1] if styled else cell, LINES[int(cell[0])] if styled else "dim")
    return text


def series(history: Sequence[UpdateRecord], value: Value) -> list[float]:
    """One number per update; NaN where it was not measured."""
    values = map(value, history)
    return [math.nan if v is None else float(v) for v in values]


def step_rate(history: Sequence[UpdateRecord]) -> list[float]:
    """Inner steps per second from each update to the next."""
    return [b.inner_steps / (b.time - a.time) for a, b in pairwise(history) if b.time > a.time]


def workers(moment: Moment, width: int) -> Text:
    states = fleet_of(moment)
    counts = "  ".join(
        f"{count} {state.replace('_', ' ')}" for state, count in states.items() if count and state != "target"
    )
    text = Text.assemble(
        ("workers ", "bold"), f"{states['target']} asked for   {counts}", no_wrap=True, overflow="ellipsis"
    )
    nodes = sorted(moment.fleet.by("outertrain_node_workers", "node").items())
    if nodes:
        text.append("\n  by node  " + "  ".join(f"{node} {'▪' * min(int(n), 16)} {n:.0f}" for node, n in nodes))
    text.truncate(width * 2)
    return text


def verdicts(moment: Moment) -> Text:
    counts = moment.learner.by("outertrain_samples_total", "verdict")
    total = max(sum(counts.values()), 1.0)
    shown = (f"{k.replace('_', ' ')} {v:,.0f} ({v / total:.1%})" for k, v in counts.items() if v)
    batch, size = (moment.learner.get(f"outertrain_batch_{key}samples") for key in ("", "target_"))
    filled = f"   batch {batch:.0f} of {size:.0f}" if batch is not None and size else ""
    return Text.assemble(("samples ", "bold"), "  ".join(shown) or "none yet", filled)


def warnings(name: str, moment: Moment) -> list[Text]:
    """What is wrong by our own look, and what Prometheus fires, if one answers."""
    own = [Text.assemble(("  ! ", "bold red"), sentence) for sentence in alarms(moment)]
    url = os.environ.get(PROMETHEUS_VARIABLE, "http://127.0.0.1:9090")
    fired = firing(url, name)
    theirs = [Text.assemble(("  ! ", "bold red"), alert, (" (Prometheus)", "dim")) for alert in fired or ()]
    source = "" if fired is None else ", Prometheus asked"
    return [Text.assemble(("alarms ", "bold"), f"{len(own) + len(theirs) or 'none'}{source}"), *own, *theirs]
