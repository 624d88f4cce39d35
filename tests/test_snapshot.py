"""Snapshots: every field is read from a metric that exists, with the value that was published."""

from pathlib import Path

from helpers import run_files
from helpers.exposition import exposition
from helpers.learner import config

from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.metrics import LearnerMetrics
from cluster.monitoring.scrape import Scrape, parse
from cluster.monitoring.snapshot import FleetSnapshot, LearnerSnapshot, belongs, fleet_in, learner_in, take_snapshot
from cluster.runs.directory import RunDirectory


def scraped(metrics: LearnerMetrics | FleetMetrics) -> Scrape:
    return Scrape(True, parse(exposition(metrics.registry)))


def test_learner_in_reads_what_the_metrics_publish(tmp_path: Path) -> None:
    metrics, record = LearnerMetrics(), run_files.history(7)[-1]
    metrics.start(config(updates=50, batch_samples=4), "host:7:1.5")
    metrics.observe_verdict("stale", 10, None, 3)
    metrics.observe_update(record, "train", 0.1)
    metrics.set_batch(3, 1.0)
    metrics.checkpoint_written(6, 1000, 0.1, 12.5)
    metrics.checkpoint_failed()
    metrics.watch_disk(tmp_path)
    found = learner_in(scraped(metrics))
    assert (found.announced, found.responding) == (True, True)
    assert found.identity == "host:7:1.5"
    assert (found.epoch, found.version, found.target_updates) == (1, 7, 50)
    assert (found.batch_samples, found.batch_target_samples, found.loss_clamp) == (3, 4, 10)
    assert (found.checkpoint_version, found.checkpoint_time, found.checkpoint_failures) == (6, 12.5, 1)
    assert found.last_update_time == record.time and found.disk_free_bytes
    assert found.verdicts["stale"] == 1 == sum(found.verdicts.values())


def test_fleet_in_gives_the_status_that_was_published() -> None:
    status = FleetStatus(
        target=9, starting=1, running=5, draining=2, abandoned=1, nodes={"a": 2, "b": 3}, pinned={"a": 2, "b": 0}
    )
    metrics = FleetMetrics()
    metrics.observe_status(status)
    assert fleet_in(scraped(metrics)) == FleetSnapshot(True, True, status)


def test_take_snapshot_of_a_stopped_run_has_its_history_only(tmp_path: Path) -> None:
    history = run_files.history(5)
    taken = take_snapshot(RunDirectory(tmp_path), history)
    assert taken.learner == LearnerSnapshot() and taken.fleet == FleetSnapshot()
    assert taken.version == 5 and take_snapshot(RunDirectory(tmp_path), []).version == 0


def test_endpoint_that_does_not_respond_reports_nothing() -> None:
    assert learner_in(Scrape(True, None)) == LearnerSnapshot(announced=True)
    assert fleet_in(Scrape(True, None)) == FleetSnapshot(announced=True)


def test_belongs_asks_the_identity_before_the_numbers() -> None:
    """Another run on the same port may be further on, in the same epoch."""
    history = run_files.history(5)
    further = LearnerSnapshot(responding=True, epoch=1, version=9)
    assert belongs(further, history, "here:1:2.0")  # it publishes none: an older version
    assert belongs(further._replace(identity="here:1:2.0"), history, "here:1:2.0")
    assert not belongs(further._replace(identity="here:8:3.0"), history, "here:1:2.0")
    assert not belongs(further._replace(version=3), history, "here:1:2.0")
