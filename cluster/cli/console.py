"""Progress on standard error while a command runs: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

from cluster.cli.interrupt import Interrupt
from cluster.monitoring.progress import Progress, duration, line, number
from common.errors import printable

PLAIN_SECONDS = 5.0  # least time between two plain lines of one topic


class Display(Protocol):
    def training(self, progress: Progress) -> None: ...
    def counting(self, what: str, done: int, total: int) -> None: ...
    def say(self, text: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def make() -> Display:
    return TerminalDisplay() if sys.stderr.isatty() else PlainDisplay()


def counter(what: str, interrupt: Interrupt, show: Display) -> Callable[[int, int], None]:
    """Returns a `progress` callback that displays the counts, then raises Interrupted if the user asked to stop."""

    def report(done: int, total: int) -> None:
        show.counting(what, done, total)
        interrupt.check()

    return report


class PlainDisplay:
    """Prints a line when something has changed, at most every few seconds."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    def training(self, progress: Progress) -> None:
        self._line("training", line(progress), at_once=progress.version in (1, progress.target))

    def counting(self, what: str, done: int, total: int) -> None:
        self._line(what, f"{what} {done}/{total}", at_once=done == total)

    def _line(self, topic: str, text: str, *, at_once: bool) -> None:
        now = time.monotonic()
        if text == self._last or (now < self._due.get(topic, 0.0) and not at_once):
            return
        self._due[topic], self._last = now + PLAIN_SECONDS, text
        self.say(text)


class TerminalDisplay:
    """A progress bar above the figures of the run, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._tasks: dict[str, Any] = {}
        self._live = Live(self._bars, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._live.console.print(printable(text), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def training(self, progress: Progress) -> None:
        from rich.columns import Columns
        from rich.console import Group

        left = f"left {duration(progress.seconds_left)}"
        self._bar("training", progress.version, progress.target, left)
        figures = [
            f"outer loss [bold]{number(progress.loss)}[/]",
            f"weight of rp [bold]{number(progress.weight_rp)}[/]",
            f"staleness [bold]{number(progress.staleness)}[/]",
            f"samples/s [bold]{number(progress.samples_per_second)}[/]",
            f"inner steps/s [bold]{number(progress.steps_per_second)}[/]",
            f"workers [bold]{progress.workers}[/]/{progress.workers_wanted}",
        ]
        self._live.update(Group(self._bars, Columns(figures, padding=(0, 3))))

    def counting(self, what: str, done: int, total: int) -> None:
        self._bar(what, done, total, "")

    def _bar(self, what: str, done: int, total: int, note: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, note=note)
        self._bars.update(self._tasks[what], completed=done, total=total, note=note)
