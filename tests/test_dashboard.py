"""The terminal dashboard: complete at both widths, honest about what it does not know."""

from io import StringIO
from pathlib import Path

import pytest
from helpers import run_files
from rich.console import Console

from cluster.monitoring.alerts import Moment
from cluster.monitoring.dashboard import CHARTS, frame, series, step_rate, watch
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.metrics import FleetMetrics, LearnerMetrics, exposition
from cluster.monitoring.scrape import Readings, parse
from cluster.runs.directory import RunDirectory
from common.config import Config
from common.update_record import UNKNOWN

GONE = Readings(False, None)


@pytest.fixture(autouse=True)
def no_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTERTRAIN_PROMETHEUS", "http://127.0.0.1:1")


def living() -> Moment:
    """A run at update 50 of 200 on two machines."""
    history, learner, fleet = run_files.history(50), LearnerMetrics(), FleetMetrics()
    learner.start(Config())
    learner.observe_update(history[-1], "train", 0.1)
    learner.observe_verdict("accepted", 1000, None, 0)
    learner.checkpoint_written(50, 1, 0.1, 1.0)
    learner.set_batch(3, 1.0)
    nodes = {"10.0.0.1": 4, "10.0.0.2": 3}
    fleet.observe_status(FleetStatus(target=8, starting=1, running=7, nodes=nodes))
    values = [Readings(True, parse(exposition(m.registry))) for m in (learner, fleet)]
    return Moment(history, values[0], values[1], history[-1].time + 1)


def shown(moment: Moment, width: int, height: int = 40) -> list[str]:
    console = Console(width=width, height=height, record=True, file=StringIO(), color_system=None)
    console.print(frame("night", moment, width, height))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "charts"), [(80, 4), (200, 6)])
def test_a_frame_fits_its_terminal(width: int, charts: int) -> None:
    lines = shown(living(), width)
    assert max(map(len, lines)) <= width and len(lines) <= 40
    text = "\n".join(lines)
    assert sum(chart.title in text for chart in CHARTS) == charts
    for part in ("night", "runs", "update 50 of 200", "epoch 1", "8 asked for", "7 running", "1 starting"):
        assert part in text
    assert "10.0.0.1 ▪▪▪▪ 4" in text and "accepted 1 (100.0%)" in text and "batch 3 of 8" in text


def test_time_left_is_known_while_it_runs() -> None:
    assert "left 3 min" in "\n".join(shown(living(), 100))  # 150 updates of 1.5 s
    assert "left" not in "\n".join(shown(living()._replace(learner=GONE), 100))


def test_alarms_are_shown() -> None:
    text = "\n".join(shown(living()._replace(learner=Readings(True, None)), 80))
    assert "no answer" in text and "! the learner does not answer" in text and "! 7 of 8 workers run" in text
    assert "alarms 2" in text


def test_a_run_that_has_not_begun() -> None:
    text = "\n".join(shown(Moment([], GONE, GONE, 0.0), 80))
    assert "not running   update 0 of 0" in text and "none yet" in text and "alarms none" in text


def test_once_prints_one_frame_of_a_run_directory(tmp_path: Path) -> None:
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
