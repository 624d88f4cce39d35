"""The metrics: what is published is what was observed, under conventional names, with labels of few values."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import run_files
from helpers.exposition import exposition
from helpers.learner import sample as make_sample
from prometheus_client.parser import text_string_to_metric_families

from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.fleet_status import FleetStatus
from cluster.monitoring.metrics import INTERVALS, STEPS, LearnerMetrics, window_range
from common.config import Config
from common.facts import Facts
from common.messages import Verdict
from common.update_record import UNKNOWN, Allocation, Quantiles, Weight

SAMPLE = make_sample(
    worker="node-7/worker-123",
    pairs=2,
    windows=(25, 300),
    loss_plus=(1.0, 3.0),
    loss_minus=(2.0, 5.0),
    seconds=1.5,
    facts=Facts(inner_steps=650, finished=1, diverged=0, exchange_seconds=0.02, task_seconds=0.5),
)
STATUS = FleetStatus(target=4, starting=1, running=2, draining=5, abandoned=1, restarts=3, nodes={"a": 2})


def value(metrics: LearnerMetrics | FleetMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def learner() -> LearnerMetrics:
    return LearnerMetrics()


def test_verdict_accepted_counts_the_facts(learner: LearnerMetrics) -> None:
    learner.observe_verdict("accepted", 24_000, SAMPLE, staleness=3)
    assert value(learner, "outertrain_samples_total", verdict="accepted") == 1
    assert value(learner, "outertrain_staleness_versions_sum") == 3
    assert value(learner, "outertrain_staleness_versions_bucket", le="2.0") == 0
    assert value(learner, "outertrain_staleness_versions_bucket", le="4.0") == 1
    assert value(learner, "outertrain_payload_bytes_sum") == 24_000
    assert value(learner, "outertrain_unroll_seconds_sum") == 1.5
    assert value(learner, "outertrain_exchange_seconds_sum") == 0.02
    assert value(learner, "outertrain_task_seconds_sum") == 0.5
    assert value(learner, "outertrain_window_steps_sum") == 325
    assert value(learner, "outertrain_inner_steps_total") == 650
    assert value(learner, "outertrain_inner_problems_total", outcome="finished") == 1
    assert value(learner, "outertrain_inner_problems_total", outcome="diverged") == 0


def test_verdict_accepted_sums_pair_losses_by_window(learner: LearnerMetrics) -> None:
    learner.observe_verdict("accepted", 1, SAMPLE, staleness=0)
    assert value(learner, "outertrain_pair_loss_sum", objective="train", window="30") == 1.5
    assert value(learner, "outertrain_pair_loss_sum", objective="train", window="300") == 4.0
    assert value(learner, "outertrain_pair_loss_count", objective="train", window="300") == 1


def test_verdict_rejected_counts_the_verdict_only(learner: LearnerMetrics) -> None:
    learner.observe_verdict("stale", 24_000, SAMPLE, staleness=40)
    learner.observe_verdict("malformed", 7, None, None)
    assert value(learner, "outertrain_samples_total", verdict="stale") == 1
    assert value(learner, "outertrain_samples_total", verdict="malformed") == 1
    assert value(learner, "outertrain_staleness_versions_count") == 1
    assert value(learner, "outertrain_payload_bytes_count") == 2
    assert value(learner, "outertrain_inner_steps_total") == 0
    assert value(learner, "outertrain_unroll_seconds_count") == 0


def test_window_range_includes_its_upper_bound() -> None:
    assert [window_range(s) for s in (1, 10, 11, 30, 10_000, 10_001)] == ["10", "10", "30", "30", "10000", "+Inf"]
    assert {window_range(s) for s in range(1, 20_000, 7)} == {str(s) for s in STEPS} | {"+Inf"}


def test_update_publishes_its_record(learner: LearnerMetrics) -> None:
    record = run_files.history(3)[-1]
    learner.observe_update(record, "valid", seconds=0.02)
    assert value(learner, "outertrain_updates_total") == 1
    assert value(learner, "outertrain_version") == 3
    assert value(learner, "outertrain_epoch") == 1
    assert value(learner, "outertrain_last_update_timestamp_seconds") == record.time
    assert value(learner, "outertrain_update_seconds_sum") == 0.02
    assert value(learner, "outertrain_outer_loss", objective="valid") == record.loss
    assert value(learner, "outertrain_gradient_norm") == record.norms.gradient
    assert value(learner, "outertrain_update_norm") == record.norms.update
    assert value(learner, "outertrain_theta_norm") == record.norms.theta
    assert value(learner, "outertrain_gradient_clipped_ratio") == record.clipped
    assert value(learner, "outertrain_workers_seen") == 2
    assert value(learner, "outertrain_estimator_variance", estimator="rp", q="0.95") == record.var_rp.q95
    assert value(learner, "outertrain_estimator_variance", estimator="es", q="0.5") == record.var_es.q50


def test_update_publishes_the_mean_interval_of_the_last_updates(learner: LearnerMetrics) -> None:
    """At a few updates per hour too, where a rate over some minutes is mostly 0."""
    record = run_files.history(1)[0]
    times = [0.0, *(5000.0 + 1800.0 * k for k in range(INTERVALS + 1))]
    seen = []
    for time in times:
        learner.observe_update(record._replace(time=time), "train", 0.1)
        seen.append(value(learner, "outertrain_update_interval_seconds"))
    assert seen[:3] == [0, 5000, 3400] and seen[-1] == 1800


def test_update_weights_of_rp_and_es_mirror_each_other(learner: LearnerMetrics) -> None:
    record = run_files.history(3)[-1]._replace(weight_rp=Weight(0.6, Quantiles(0.1, 0.2, 0.7, 0.8, 0.9)))
    learner.observe_update(record, "train", 0.1)
    assert value(learner, "outertrain_estimator_mean_weight", estimator="rp") == 0.6
    assert value(learner, "outertrain_estimator_mean_weight", estimator="es") == pytest.approx(0.4)
    assert value(learner, "outertrain_estimator_weight", estimator="rp", q="0.25") == 0.2
    assert value(learner, "outertrain_estimator_weight", estimator="es", q="0.75") == pytest.approx(0.8)
    assert value(learner, "outertrain_estimator_weight", estimator="es", q="0.95") == pytest.approx(0.9)


def test_update_without_rp_is_nan_and_counts_skipped_pairs(
    learner: LearnerMetrics,
) -> None:
    record = run_files.history(1)[0]._replace(var_rp=UNKNOWN, rp_pairs=3, es_pairs=8, rp_nonfinite=2)
    learner.observe_update(record, "train", 0.1)
    assert math.isnan(value(learner, "outertrain_estimator_variance", estimator="rp", q="0.5"))
    assert value(learner, "outertrain_rp_skipped_pairs_total") == 5
    assert value(learner, "outertrain_rp_nonfinite_pairs_total") == 2
    assert value(learner, "outertrain_pairs_total", estimator="rp") == 3
    assert value(learner, "outertrain_pairs_total", estimator="es") == 8


def test_update_publishes_what_allocation_has_decided(learner: LearnerMetrics) -> None:
    learner.observe_update(run_files.history(1)[0]._replace(allocation=Allocation(0.05, 0.6, 0.72)), "train", 0.1)
    assert value(learner, "outertrain_rp_worth_ratio") == 0.6


def test_start_publishes_configuration_and_position(learner: LearnerMetrics) -> None:
    learner.start(Config(), "host:7:1.5")
    learner.set_position(epoch=2, version=17)
    learner.set_batch(5, probe_rate=0.25)
    text = exposition(learner.registry)
    assert re.search(r'outertrain_build_info{jax="[\d.]+",optax="[\d.]+",ray="[\d.]+",version="[\d.]+"} 1.0', text)
    assert (
        'estimator="merged",identity="host:7:1.5",merge="scalar",objective="train",optimizer="mlp",task="conv"} 1.0'
        in text
    )
    assert value(learner, "outertrain_target_updates") == 200
    assert value(learner, "outertrain_batch_target_samples") == 8
    assert value(learner, "outertrain_staleness_limit") == -1
    assert (value(learner, "outertrain_epoch"), value(learner, "outertrain_version")) == (2, 17)
    assert (value(learner, "outertrain_batch_samples"), value(learner, "outertrain_probe_ratio")) == (5, 0.25)
    assert value(learner, "outertrain_outer_loss_clamp") == 10


def test_watch_disk_reads_free_space_at_each_scrape(
    learner: LearnerMetrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner.watch_disk(tmp_path)
    assert value(learner, "outertrain_disk_free_bytes") > 0
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=7))
    assert value(learner, "outertrain_disk_free_bytes") == 7
    monkeypatch.undo()
    learner.watch_disk(tmp_path / "gone")
    assert math.isnan(value(learner, "outertrain_disk_free_bytes"))


def test_verdicts_have_series_from_the_start(learner: LearnerMetrics) -> None:
    assert [value(learner, "outertrain_samples_total", verdict=v.value) for v in Verdict] == [0] * len(Verdict)


def test_checkpoints_are_counted_and_timed(learner: LearnerMetrics) -> None:
    learner.checkpoint_written(version=9, size_bytes=12_000, seconds=0.05, time=1234.5)
    learner.checkpoint_failed()
    assert value(learner, "outertrain_checkpoint_version") == 9
    assert value(learner, "outertrain_checkpoint_bytes") == 12_000
    assert value(learner, "outertrain_checkpoint_seconds_sum") == 0.05
    assert value(learner, "outertrain_checkpoint_timestamp_seconds") == 1234.5
    assert value(learner, "outertrain_checkpoint_failures_total") == 1


def test_fleet_publishes_its_status_and_drops_gone_nodes() -> None:
    fleet = FleetMetrics()
    fleet.observe_status(STATUS)
    fleet.observe_status(replace(STATUS, restarts=5, nodes={"b": 3}, pinned={"b": 1}))
    assert value(fleet, "outertrain_workers_target") == 4
    assert value(fleet, "outertrain_workers", state="running") == 2
    assert value(fleet, "outertrain_workers", state="leaving") == 5
    assert value(fleet, "outertrain_workers", state="given_up") == 1
    assert value(fleet, "outertrain_worker_restarts_total") == 5
    assert value(fleet, "outertrain_node_workers", node="a") is None
    assert value(fleet, "outertrain_node_workers", node="b") == 3
    assert value(fleet, "outertrain_node_workers_pinned", node="a") is None
    assert value(fleet, "outertrain_node_workers_pinned", node="b") == 1


def test_labels_have_few_values_and_no_created_series(learner: LearnerMetrics) -> None:
    fill(learner)
    text = exposition(learner.registry)
    assert "worker-123" not in text and "_created" not in text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    own = [f for name, f in families.items() if name.startswith("outertrain_")]
    assert len(own) > 35 and all(f.documentation.endswith(".") for f in own)
    assert sum(len(f.samples) for f in families.values()) < 250


def fill(learner: LearnerMetrics) -> None:
    learner.observe_verdict("accepted", 24_000, SAMPLE, staleness=3)
    learner.observe_update(run_files.history(1)[0], "train", 0.1)
    learner.checkpoint_written(1, 1, 0.1, 1.0)


def test_two_learners_in_one_process_share_nothing() -> None:
    first, second = LearnerMetrics(), LearnerMetrics()
    first.checkpoint_failed()
    assert value(second, "outertrain_checkpoint_failures_total") == 0


def test_update_counts_dropped_and_clipped_pairs(learner: LearnerMetrics) -> None:
    record = run_files.history(1)[0]._replace(es_pairs=8)
    for pairs in (6, 0):
        learner.observe_update(record._replace(rp_pairs=pairs, rp_dropped=8 - pairs, rp_clipped=3), "train", 0.1)
    assert value(learner, "outertrain_rp_dropped_pairs_total") == 10
    assert value(learner, "outertrain_empty_updates_total") == 1
    assert value(learner, "outertrain_rp_clipped_pairs_total") == 6
    assert value(learner, "outertrain_rp_skipped_pairs_total") == 0


def test_metrics_ignore_the_multiprocess_mode_of_other_programs(tmp_path: Path) -> None:
    program = (
        "from cluster.monitoring.fleet_metrics import FleetMetrics; from cluster.monitoring.fleet_status import *\n"
        "from prometheus_client import generate_latest\n"
        "m = FleetMetrics(); m.observe_status(FleetStatus(target=4)); print(generate_latest(m.registry).decode())"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert "outertrain_workers_target 4.0" in done.stdout and not list(tmp_path.iterdir())
