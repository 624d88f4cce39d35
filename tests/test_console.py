"""Progress on standard error: plain lines in a file or pipe, bars on a terminal."""

import io
import sys

import pytest

from cluster.cli import console
from cluster.monitoring.progress import Progress


def progress(version: int, loss: float | None = 1.0) -> Progress:
    return Progress(version, 10, loss, 0.5, 0.25, 4.0, 200.0, 2, 2, 30.0)


def test_plain_display_prints_changes_at_most_every_5_s(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.make() as show:
        assert isinstance(show, console.PlainDisplay)
        for version, at in ((0, 0.0), (1, 1.0), (2, 2.0), (3, 7.0), (3, 20.0), (10, 21.0)):
            now[0] = at
            show.training(progress(version))
        show.counting("evaluating", 4, 4)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[1] for line in lines] == ["0/10", "1/10", "3/10", "10/10", "4/4"]
    assert lines[1] == (
        "update 1/10  loss 1  weight of rp 0.5  staleness 0.25  4 samples/s  200 inner steps/s  workers 2/2  30 s left"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_display_shows_every_figure_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with console.make() as show:
        assert isinstance(show, console.TerminalDisplay)
        show.training(progress(3, loss=None))
        show.counting("evaluating", 2, 4)
        show.say("a [bold] word")
    text = terminal.getvalue()
    for figure in (
        "training",
        "3/10",
        "left 30 s",
        "outer loss",
        "?",
        "weight of rp",
        "inner steps/s",
        "2/4",
        "a [bold] word",
    ):
        assert figure in text
