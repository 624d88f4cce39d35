"""A history with a torn line in the middle, as a full disk leaves it: every reader sees the same records."""

from io import StringIO
from pathlib import Path

import pytest
from helpers import run_files
from rich.console import Console

from cluster.cli.train import first_update
from cluster.monitoring.dashboard import watch
from cluster.monitoring.status import status_of
from cluster.report.page import gather, write_report
from cluster.runs.directory import RunDirectory
from common.config import Config
from learner.history import HistoryReader, read_history, read_newest

UPDATES = run_files.history(30)


@pytest.fixture
def torn(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(run_files.write_run(tmp_path / "night", UPDATES, [], Config()))
    lines = run.history.read_bytes().splitlines(keepends=True)
    lines.insert(10, lines[10][:300] + b"\n")  # the beginning of the line that follows
    run.history.write_bytes(b"".join(lines))
    return run


def test_torn_history_readers_agree(torn: RunDirectory) -> None:
    assert read_history(torn.path) == UPDATES == HistoryReader(torn.path).read()
    assert read_newest(torn.path, 25) == UPDATES[-25:]


def test_torn_history_train_summary_is_written(torn: RunDirectory) -> None:
    assert first_update(torn, UPDATES[0].time - 5.0) == 5.0
    assert first_update(torn, UPDATES[20].time - 1.0) == 1.0


def test_torn_history_report_is_written(torn: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run_files.draw_nothing(monkeypatch)
    assert gather(torn.path, Config()).history == UPDATES
    assert "30" in write_report(torn.path).read_text()


def test_torn_history_status_and_watch_show_the_last_update(torn: RunDirectory) -> None:
    assert status_of(torn).progress.version == 30
    out = StringIO()
    watch(torn, once=True, console=Console(width=80, file=out))
    assert "update 30 of 30" in out.getvalue()
