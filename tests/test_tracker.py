"""Trackers behind a fake library: what reaches them, and that none of them costs an outer update."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.records import LINE, record

from cluster.cli import train
from cluster.runs import directory
from cluster.runs.directory import RunDirectory
from cluster.tracking import tracker
from cluster.tracking.sink import Sink, TrackedRun, scalars
from cluster.tracking.tracker import Tracker, missing, store
from common.config import Config
from common.config.tracking import TrackingConfig
from common.configfile import load
from common.errors import UserError

CONFIG = Config(tracking=TrackingConfig(sinks=("mlflow",)))


class Fake:
    """A tracker that remembers; `broken` calls raise."""

    def __init__(self, tracked: TrackedRun, broken: Sequence[str] = ()):
        self.tracked, self.broken, self.identity = tracked, broken, tracked.identity or "made-1"
        self.calls: list[tuple[Any, ...]] = []
        self._call("open")

    def log(self, version: int, time: float, scalars: Mapping[str, float]) -> None:
        self._call("log", version, dict(scalars))

    def store(self, files: Sequence[Path]) -> None:
        self._call("store", *files)

    def close(self) -> None:
        self._call("close")

    def _call(self, *call: Any) -> None:
        if call[0] in self.broken:
            raise ConnectionError("the server is down\nand has more to say")
        self.calls.append(call)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path))
    return directory.create("a", CONFIG)


def opener(made: list[Fake], *broken: str):
    def open_sink(tracked: TrackedRun) -> Sink:
        made.append(Fake(tracked, broken))
        return made[-1]

    return lambda name: open_sink


def test_updates_reach_the_tracker_in_order(run: RunDirectory) -> None:
    made: list[Fake] = []
    tracked = Tracker(run, "mlflow", 0, opener(made))
    for version in (1, 2, 3):
        tracked.put(record(version))
    tracked.close()
    [fake] = made
    assert [call[0] for call in fake.calls] == ["open", "log", "log", "log", "close"]
    assert [call[1] for call in fake.calls[1:4]] == [1, 2, 3] and tracked.lost == 0
    assert fake.calls[1][2] == scalars(record(1)) and fake.calls[1][2]["loss"] == LINE["loss"]
    assert fake.tracked.parameters()["outer.updates"] == str(CONFIG.outer.updates)
    assert fake.tracked.parameters()["tracking.sinks"] == '["mlflow"]'


def test_resumed_run_continues_the_run_of_its_tracker(run: RunDirectory) -> None:
    made: list[Fake] = []
    Tracker(run, "mlflow", 0, opener(made)).close()
    Tracker(run, "mlflow", 7, opener(made)).close()
    assert [(fake.tracked.identity, fake.tracked.version) for fake in made] == [(None, 0), ("made-1", 7)]


@pytest.mark.parametrize("broken", ["open", "log"])
def test_tracker_that_is_down_is_one_sentence(run: RunDirectory, caplog: pytest.LogCaptureFixture, broken: str) -> None:
    with caplog.at_level(logging.WARNING):
        tracked = Tracker(run, "mlflow", 0, opener([], broken))
        for version in (1, 2, 3):
            tracked.put(record(version))
        tracked.close()
    assert tracked.lost == 3
    assert [entry.message for entry in caplog.records] == [
        "the tracker mlflow failed (the server is down): training continues without it, and it is tried again",
        "the tracker mlflow misses 3 outer updates; history.jsonl has them",
    ]


def test_tracker_that_is_down_for_long_is_reported_once(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failed sink is closed before the next one is opened."""
    monkeypatch.setattr(tracker, "RETRY_S", 0.0)
    made: list[Fake] = []
    failures = iter([("log",), ("log", "close"), ("open",), ()])

    def open_sink(tracked: TrackedRun) -> Sink:
        made.append(Fake(tracked, next(failures)))
        return made[-1]

    with caplog.at_level(logging.WARNING):
        tracked = Tracker(run, "mlflow", 0, lambda name: open_sink)
        for version in (1, 2, 3, 4):
            tracked.put(record(version))
        tracked.close()
    assert [[call[0] for call in fake.calls] for fake in made[:2]] == [["open", "close"], ["open"]]
    down, again, missed = (entry.message for entry in caplog.records)
    assert "failed (the server is down)" in down and "works again; it has missed 3 outer updates" in again
    assert missed == "the tracker mlflow misses 3 outer updates; history.jsonl has them"


def test_tracker_is_tried_again_after_a_while(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "RETRY_S", 0.0)
    made: list[Fake] = []
    failures = iter([("open",), ()])

    def open_sink(tracked: TrackedRun) -> Sink:
        made.append(Fake(tracked, next(failures)))
        return made[-1]

    tracked = Tracker(run, "mlflow", 0, lambda name: open_sink)
    tracked.put(record(1))
    tracked.close()
    assert tracked.lost == 0 and [call[0] for call in made[-1].calls] == ["open", "log", "close"]


def test_full_queue_drops_updates_and_never_blocks(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "QUEUE", 3)
    entered, released, made = threading.Event(), threading.Event(), list[Fake]()

    def slow(tracked: TrackedRun) -> Sink:
        entered.set()
        released.wait(60)
        made.append(Fake(tracked))
        return made[-1]

    tracked = Tracker(run, "mlflow", 0, lambda name: slow)
    assert entered.wait(60)
    for version in range(10):
        tracked.put(record(version))
    assert tracked.lost == 7
    released.set()
    tracked.close()
    assert [call[1] for call in made[0].calls if call[0] == "log"] == [0, 1, 2]


def test_stuck_tracker_does_not_keep_a_run_from_ending(run: RunDirectory, caplog: pytest.LogCaptureFixture) -> None:
    released = threading.Event()

    def stuck(tracked: TrackedRun) -> Sink:
        released.wait(60)
        return Fake(tracked)

    tracked = Tracker(run, "mlflow", 0, lambda name: stuck)
    with caplog.at_level(logging.WARNING):
        tracked.close(0.05)
    assert "did not end within 0.05 s" in caplog.text
    released.set()


def test_files_reach_the_trackers_at_the_end(run: RunDirectory) -> None:
    made: list[Fake] = []
    Tracker(run, "mlflow", 0, opener(made)).close()
    assert store(run, [run.page, run.config_file], opener(made)) == []
    assert made[1].calls == [("open",), ("store", run.page, run.config_file), ("close",)]
    assert made[1].tracked.identity == "made-1"
    [problem] = store(run, [run.page], opener([], "store"))
    assert problem.startswith("the tracker mlflow failed (the server is down)")


def test_missing_library_is_named_with_its_remedy(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda name: None if name == "mlflow" else object())
    both = replace(CONFIG, tracking=TrackingConfig(sinks=("tensorboard", "mlflow")))
    assert missing(both) == (
        "not installed, so nothing is tracked there: mlflow; install them with pip install 'outertrain[tracking]'"
    )
    assert missing(Config()) == ""

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    [problem] = store(run, [], absent)
    assert problem.startswith("the tracker mlflow is not installed") and "outertrain[tracking]" in problem


def test_numbers_that_are_not_finite_are_left_out() -> None:
    assert "loss" not in scalars(record(1)._replace(loss=float("nan"), loss_plus=float("inf")))


@pytest.mark.parametrize(
    "override, sentence",
    [
        ("tracking.sinks=['mlflow', 'mlflow']", "name each tracker once"),
        ("tracking.sinks=['comet']", "use one of tensorboard, mlflow, wandb"),
    ],
)
def test_impossible_trackers_are_rejected(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load("quickstart", [override])


def test_theta_that_cannot_be_written_is_left_out(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train, "find", lambda target: None)
    monkeypatch.setattr(train.pretrained, "save", full)
    assert train.artifacts(run) == [run.page, run.config_file]
    monkeypatch.setattr(train.pretrained, "save", lambda *_: None)
    assert train.artifacts(run)[2:] == [run.path / "tracking" / "learned.theta"]
