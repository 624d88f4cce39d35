"""The terminal dashboard: complete at both widths, honest about what it does not know."""

import json
from io import StringIO
from pathlib import Path

import pytest
from helpers import run_files
from helpers.exposition import exposition
from rich.console import Console

from cluster.monitoring import dashboard
from cluster.monitoring.dashboard import CHARTS, frame, series, step_rate, watch
from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.metrics import LearnerMetrics
from cluster.monitoring.scrape import Scrape, parse
from cluster.monitoring.snapshot import FleetSnapshot, LearnerSnapshot, Snapshot, fleet_in, learner_in
from cluster.runs.directory import RunDirectory
from common import jsonlines
from common.config import Config
from common.jsonlines import Writer
from common.update_record import UNKNOWN


@pytest.fixture(autouse=True)
def no_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTERTRAIN_PROMETHEUS", "http://127.0.0.1:1")


def running() -> Snapshot:
    """A run at update 50 of 200 on two machines."""
    history, learner, fleet = run_files.history(50), LearnerMetrics(), FleetMetrics()
    learner.start(Config())
    learner.observe_update(history[-1], "train", 0.1)
    learner.observe_verdict("accepted", 1000, None, 0)
    learner.checkpoint_written(50, 1, 0.1, 1.0)
    learner.set_batch(3, 1.0)
    nodes = {"10.0.0.1": 4, "10.0.0.2": 3}
    fleet.observe_status(FleetStatus(target=8, starting=1, running=7, nodes=nodes))
    scraped = [Scrape(True, parse(exposition(m.registry))) for m in (learner, fleet)]
    return Snapshot(history, learner_in(scraped[0]), fleet_in(scraped[1]), history[-1].time + 1)


def shown(snapshot: Snapshot, width: int, height: int = 40) -> list[str]:
    console = Console(width=width, height=height, record=True, file=StringIO(), color_system=None)
    console.print(frame("night", snapshot, width, height))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "charts"), [(80, 4), (200, 6)])
def test_frame_fits_its_terminal(width: int, charts: int) -> None:
    lines = shown(running(), width)
    assert max(map(len, lines)) <= width and len(lines) <= 40
    text = "\n".join(lines)
    assert sum(chart.title in text for chart in CHARTS) == charts
    for part in ("night", "running", "update 50 of 200", "epoch 1", "8 requested", "7 running", "1 starting"):
        assert part in text
    assert "10.0.0.1 ▪▪▪▪ 4" in text and "accepted 1 (100.0%)" in text and "batch 3 of 8" in text


def test_frame_shows_the_time_left_of_a_running_run() -> None:
    assert "3 min" in "\n".join(shown(running(), 100))  # 150 updates of 1.5 s
    assert "left" not in "\n".join(shown(running()._replace(learner=LearnerSnapshot()), 100))


def test_frame_shows_alerts() -> None:
    text = "\n".join(shown(running()._replace(learner=LearnerSnapshot(announced=True)), 80))
    assert "not responding" in text and "! the learner is not responding" in text
    assert "! 7 of 8 workers are running" in text
    assert "alerts 2 (no Prometheus responds at http://127.0.0.1:1)" in text
    assert "samples not known: the learner does not respond" in text and "? samples/s" in text
    stale = "\n".join(shown(running()._replace(learner=LearnerSnapshot(announced=True, foreign=True)), 120))
    assert "another run responds at its address" in stale and "its target file is stale" in stale
    lone = "\n".join(shown(running()._replace(fleet=FleetSnapshot(announced=True)), 80))
    assert "workers not known: the fleet manager does not respond" in lone


def test_frame_of_a_run_that_has_not_begun() -> None:
    text = "\n".join(shown(Snapshot([], LearnerSnapshot(), FleetSnapshot(), 0.0), 80))
    assert "not running   update 0 of 0" in text and "none yet" in text and "alerts none" in text


def test_watch_once_prints_one_frame(tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "night", run_files.history(30), [], Config())
    with open(tmp_path / "out", "w") as out:
        watch(RunDirectory(run), once=True, console=Console(width=80, file=out))
    assert "update 30 of 30" in (tmp_path / "out").read_text()


def test_series_has_a_number_per_update_and_gaps() -> None:
    history = run_files.history(4)
    assert series(history, lambda r: r.windows.max) == [record.windows.max for record in history]
    gaps = series([history[0], history[1]._replace(var_rp=UNKNOWN)], lambda r: r.var_rp.q50)
    assert gaps[0] == history[0].var_rp.q50 and gaps[1] != gaps[1]


def test_step_rate_is_taken_between_updates() -> None:
    history = run_files.history(4)
    assert step_rate(history) == [record.inner_steps / 1.5 for record in history[1:]]


def test_watch_parses_only_what_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a history of 2,000 updates, the second and the third frame parse one line each."""
    first = run_files.history(1)[0]
    run = run_files.write_run(tmp_path / "night", [first._replace(version=v) for v in range(1, 2_001)], [], Config())
    parsed: list[int] = []
    frames, parse = [], json.loads

    def loads(text: str | bytes) -> object:
        found = parse(text)
        parsed.extend([found["version"]] if "verdicts" in found else [])
        return found

    def sleep(_: float) -> None:
        """Between two frames an update is written."""
        frames.append(len(parsed))
        if len(frames) == 3:
            raise KeyboardInterrupt
        writer.add(first._replace(version=2_000 + len(frames)).to_json())
        writer.flush()

    writer = Writer(run / "history.jsonl")
    monkeypatch.setattr(jsonlines.json, "loads", loads)
    monkeypatch.setattr(dashboard.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watch(RunDirectory(run), console=Console(width=80, height=40, file=StringIO()))
    assert frames == [2_000, 2_001, 2_002]
