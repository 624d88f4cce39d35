"""The terminal dashboard of a run: charts, workers and alerts, for those who have no Grafana.

It reads the run directory and the endpoints announced there, so it needs neither Ray nor Prometheus, shows the same
numbers as both, and can be started and stopped at any time.
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

from cluster.monitoring.alerts import alerts, firing
from cluster.monitoring.progress import duration, number, summarise, worker_counts
from cluster.monitoring.snapshot import Snapshot, take_snapshot
from cluster.monitoring.terminal_chart import chart
from cluster.runs.directory import RunDirectory
from common.update_record import UpdateRecord
from learner.history import HistoryReader

REFRESH_S = 2.0
PROMETHEUS_VARIABLE = "OUTERTRAIN_PROMETHEUS"  # its URL
COLOURS = ("cyan", "yellow", "green")
HEADER_UPDATES = 100  # the newest updates, for the numbers of the header
Value = Callable[[UpdateRecord], float | None]


class Chart(NamedTuple):
    """Lines over the outer updates."""

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
    """Redraws until Ctrl-C. `once` prints a single frame, for scripts and small terminals.

    The history is read once; each frame after that parses only what was appended to it.
    """
    console, reader = console or Console(), HistoryReader(run.path)

    def draw_frame(height: int) -> RenderableType:
        return frame(run.name, take_snapshot(run, reader.read()), console.width, height)

    if once:
        console.print(draw_frame(50))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(draw_frame(console.height), refresh=True)
            time.sleep(REFRESH_S)


def frame(name: str, snapshot: Snapshot, width: int, height: int) -> RenderableType:
    """The dashboard of the run `name`, for a terminal of this size in characters."""
    columns = 3 if width >= 150 else 2
    shown = CHARTS if columns == 3 else CHARTS[:4]
    rows = -(-len(shown) // columns)
    chart_height = max(3, min(9, (height - 12) // rows - 2))
    grid = Table.grid(padding=(0, 1))
    cell = (width - (columns - 1)) // columns - 1
    for start in range(0, len(shown), columns):
        grid.add_row(*(draw(c, snapshot.history, cell, chart_height) for c in shown[start : start + columns]))
    return Group(
        header(name, snapshot), grid, workers(snapshot, width), samples(snapshot), *alert_lines(name, snapshot)
    )


def header(name: str, snapshot: Snapshot) -> Text:
    """State, progress and time left in one line."""
    learner, version = snapshot.learner, snapshot.version
    silent = "another run responds at its address" if learner.foreign else "not responding"
    state = "running" if learner.responding else silent if learner.announced else "not running"
    target = int(learner.target_updates or version)
    recent, status = snapshot.history[-HEADER_UPDATES:], snapshot.fleet.status
    p = summarise(recent, version, target, status, snapshot.now, snapshot.epoch)
    left = f"   {duration(p.seconds_left)} left" if learner.responding and version < target else ""
    text = Text.assemble((name, "bold"), f"   {state}   update {version} of {target}", left)
    text.append(f"   loss {number(p.loss)}   {number(p.samples_per_second if learner.responding else None)} samples/s")
    text.append(f"   epoch {learner.epoch:.0f}" if learner.epoch else "")
    text.append("   (charts: all updates)", "dim")
    return text


def draw(one: Chart, history: Sequence[UpdateRecord], width: int, height: int) -> Text:
    """A chart with its title and newest values."""
    lines = [step_rate(history)] if one.rate else [series(history, value) for value in one.values]
    newest = [line[-1] if line else math.nan for line in lines]
    text = Text(no_wrap=True, overflow="crop")
    text.append(one.title, "bold")
    for index, value in enumerate(newest):
        label = one.names[index] + " " if one.names else ""
        text.append(f"  {label}{number(None if math.isnan(value) else value)}", COLOURS[index])
    for row in chart(lines, width, height, log=one.log):
        text.append("\n")
        for cell in row:
            styled = len(cell) == 2
            text.append(cell[-1] if styled else cell, COLOURS[int(cell[0])] if styled else "dim")
    return text


def series(history: Sequence[UpdateRecord], value: Value) -> list[float]:
    """One number per update; NaN where it was not measured."""
    values = map(value, history)
    return [math.nan if v is None else float(v) for v in values]


def step_rate(history: Sequence[UpdateRecord]) -> list[float]:
    """Inner steps per second from each update to the next."""
    return [b.inner_steps / (b.time - a.time) for a, b in pairwise(history) if b.time > a.time]


def workers(snapshot: Snapshot, width: int) -> Text:
    """Counts of workers by state and by node."""
    fleet = snapshot.fleet.status
    if (snapshot.fleet.announced or snapshot.learner.responding) and not snapshot.fleet.responding:
        return Text.assemble(("workers ", "bold"), "not known: the fleet manager does not respond")
    text = Text.assemble(
        ("workers ", "bold"),
        f"{fleet.target} requested   {worker_counts(fleet, '  ')}",
        no_wrap=True,
        overflow="ellipsis",
    )
    if fleet.nodes:
        bars = (f"{node} {'▪' * min(count, 16)} {count}" for node, count in sorted(fleet.nodes.items()))
        text.append("\n  by node  " + "  ".join(bars))
    text.truncate(width * 2)
    return text


def samples(snapshot: Snapshot) -> Text:
    """Samples by verdict, and how full the batch is."""
    learner = snapshot.learner
    if learner.announced and not learner.responding:
        return Text.assemble(("samples ", "bold"), "not known: the learner does not respond")
    total = max(sum(learner.verdicts.values()), 1)
    shown = (f"{k.replace('_', ' ')} {v:,} ({v / total:.1%})" for k, v in learner.verdicts.items() if v)
    batch, size = learner.batch_samples, learner.batch_target_samples
    filled = f"   batch {batch:.0f} of {size:.0f}" if batch is not None and size else ""
    return Text.assemble(("samples ", "bold"), "  ".join(shown) or "none yet", filled)


def alert_lines(name: str, snapshot: Snapshot) -> list[Text]:
    """Alerts from the snapshot, and those that a Prometheus fires, if one responds."""
    own = [Text.assemble(("  ! ", "bold red"), sentence) for sentence in alerts(snapshot)]
    url = os.environ.get(PROMETHEUS_VARIABLE, "http://127.0.0.1:9090")
    fired = firing(url, name)
    theirs = [Text.assemble(("  ! ", "bold red"), alert, (" (Prometheus)", "dim")) for alert in fired or ()]
    source = f" (no Prometheus responds at {url})" if fired is None else " (including those of Prometheus)"
    return [Text.assemble(("alerts ", "bold"), f"{len(own) + len(theirs) or 'none'}{source}"), *own, *theirs]
