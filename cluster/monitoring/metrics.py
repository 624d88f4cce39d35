"""Every Prometheus metric of outertrain, declared once, and the endpoint that serves them.

Pure functions return values; the shells (learner, fleet) hand them to the classes here. The registry is injected, so two
learners in one process do not mix. A metric never carries a worker's name: all labels have few values. The labels `run`
and `role` are not on the metrics, Prometheus adds them from the target file (`cluster/monitoring/targets.py`).
"""

import errno
import math
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary

from cluster.monitoring.fleet_status import FleetStatus
from common.config import Config
from common.errors import UserError
from common.messages import GradientSample, Verdict
from common.update_record import LEVELS, Quantiles, UpdateRecord

prometheus_client.disable_created_metrics()  # one more series per counter and per bucket set, which nothing reads

STALENESS: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # versions
STEPS: Final = (10, 30, 100, 300, 1000, 3000, 10000)  # inner steps; also the window ranges of the outer loss
SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
BYTES: Final = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
QUANTILES: Final = tuple(str(level) for level in LEVELS)  # values of the label `q`


def window_range(steps: int) -> str:
    """The label of a window's range: its inclusive upper end, as in a histogram's `le`."""
    return next((str(end) for end in STEPS if steps <= end), "+Inf")


class LearnerMetrics:
    """What one learner publishes: samples, outer updates, estimators, checkpoints."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        self._declare_run()
        self._declare_samples()
        self._declare_updates()
        self._declare_estimators()
        self._declare_checkpoints()

    def _declare_run(self) -> None:
        r = self.registry
        self._build = Info("outertrain_build", "Versions of the code that runs.", registry=r)
        self._run = Info("outertrain_run", "Choices of the run that an alert must know.", registry=r)
        self._epoch = Gauge("outertrain_epoch", "Which life of the learner this is.", registry=r)
        self._version = Gauge("outertrain_version", "Outer updates that theta has had.", registry=r)
        self._target = Gauge("outertrain_target_updates", "Outer updates of the whole run.", registry=r)
        self._limit = Gauge("outertrain_staleness_limit", "Largest staleness accepted; -1: no limit.", registry=r)
        self._clamp = Gauge("outertrain_outer_loss_clamp", "Largest value of the outer loss.", registry=r)
        self._batch_size = Gauge("outertrain_batch_target_samples", "Samples of one outer update.", registry=r)
        self._disk = Gauge("outertrain_disk_free_bytes", "Free space where the run directory lies.", registry=r)

    def _declare_samples(self) -> None:
        r = self.registry
        samples = Counter("outertrain_samples", "Samples received.", ["verdict"], registry=r)
        # a series that begins at its first sample hides that sample from `rate`
        self._by_verdict = {verdict.value: samples.labels(verdict.value) for verdict in Verdict}
        self._batch = Gauge("outertrain_batch_samples", "Samples in the batch being collected.", registry=r)
        self._staleness = Histogram(
            "outertrain_staleness_versions", "Staleness of judged samples.", buckets=STALENESS, registry=r
        )
        self._payload = Histogram("outertrain_payload_bytes", "Size of samples.", buckets=BYTES, registry=r)
        self._window = Histogram("outertrain_window_steps", "Steps of truncations.", buckets=STEPS, registry=r)
        self._unroll = Histogram("outertrain_unroll_seconds", "Unroll of a sample.", buckets=SECONDS, registry=r)
        self._exchange = Histogram(
            "outertrain_exchange_seconds", "Exchange as the worker saw it.", buckets=SECONDS, registry=r
        )
        self._task = Histogram("outertrain_task_seconds", "Making of a new task.", buckets=SECONDS, registry=r)
        self._pair_loss = Summary(
            "outertrain_pair_loss", "Outer loss of pairs by window (upper end).", ["objective", "window"], registry=r
        )
        self._steps = Counter("outertrain_inner_steps", "Inner training steps taken.", registry=r)
        problems = Counter("outertrain_inner_problems", "Inner problems that ended.", ["outcome"], registry=r)
        self._diverged, self._finished = problems.labels("diverged"), problems.labels("finished")

    def _declare_updates(self) -> None:
        r = self.registry
        self._updates = Counter("outertrain_updates", "Outer updates applied by this process.", registry=r)
        self._updated = Gauge("outertrain_last_update_timestamp_seconds", "When the last one was.", registry=r)
        self._update_seconds = Histogram(
            "outertrain_update_seconds", "Merge, update and publishing.", buckets=SECONDS, registry=r
        )
        self._loss = Gauge("outertrain_outer_loss", "Mean outer loss of the last batch.", ["objective"], registry=r)
        self._gradient_norm = Gauge("outertrain_gradient_norm", "Of the merged gradient, unclipped.", registry=r)
        self._update_norm = Gauge("outertrain_update_norm", "Of the last step of theta.", registry=r)
        self._theta_norm = Gauge("outertrain_theta_norm", "Of theta.", registry=r)
        self._clipped = Gauge("outertrain_gradient_clipped_ratio", "Share that the clip changed.", registry=r)
        self._senders = Gauge("outertrain_workers_seen", "Workers with a sample in the last batch.", registry=r)

    def _declare_estimators(self) -> None:
        r, labels = self.registry, ["estimator", "q"]
        self._variance = Gauge(
            "outertrain_estimator_variance", "Variance of a pair, quantiles over coordinates.", labels, registry=r
        )
        self._weight = Gauge(
            "outertrain_estimator_weight", "Merge weight, quantiles over coordinates.", labels, registry=r
        )
        self._weight_mean = Gauge(
            "outertrain_estimator_mean_weight", "Merge weight, mean over coordinates.", ["estimator"], registry=r
        )
        self._pairs = Counter("outertrain_pairs", "Pairs in applied batches.", ["estimator"], registry=r)
        self._skipped = Counter("outertrain_rp_skipped_pairs", "Pairs that did not compute rp.", registry=r)
        self._nonfinite = Counter("outertrain_rp_nonfinite_pairs", "Pairs whose rp was not finite.", registry=r)
        self._probe = Gauge("outertrain_probe_ratio", "Share of samples that are asked for rp.", registry=r)

    def _declare_checkpoints(self) -> None:
        r = self.registry
        self._saved = Gauge("outertrain_checkpoint_timestamp_seconds", "When the last was durable.", registry=r)
        self._saved_version = Gauge("outertrain_checkpoint_version", "Last durable version.", registry=r)
        self._saved_bytes = Gauge("outertrain_checkpoint_bytes", "Size of the last one.", registry=r)
        self._save_seconds = Histogram(
            "outertrain_checkpoint_seconds", "Writing one until it is durable.", buckets=SECONDS, registry=r
        )
        self._failures = Counter("outertrain_checkpoint_failures", "Checkpoints not written.", registry=r)

    def start(self, config: Config) -> None:
        """Call once: versions of the code, choices of the run, and the constants that alerts compare with."""
        self._build.info(build_versions())
        estimator = config.estimator
        self._run.info(
            {
                "task": config.task.family,
                "optimizer": config.optimizer.family,
                "estimator": estimator.use,
                "es": estimator.es,
                "objective": estimator.objective,
                "merge": estimator.merge,
            }
        )
        self._target.set(config.outer.updates)
        self._batch_size.set(config.outer.batch_samples)
        self._limit.set(config.outer.max_staleness)
        self._clamp.set(estimator.clamp)

    def set_position(self, epoch: int, version: int) -> None:
        self._epoch.set(epoch)
        self._version.set(version)

    def watch_disk(self, folder: Path) -> None:
        """The free space of `folder` is read at every scrape."""
        self._disk.set_function(lambda: _free_bytes(folder))

    def observe_verdict(
        self, label: str, payload_bytes: int, sample: GradientSample | None, staleness: int | None
    ) -> None:
        """One judged payload. `sample` is None if it could not be read, `staleness` if it has no meaning for it."""
        self._by_verdict[label].inc()
        self._payload.observe(payload_bytes)
        if staleness is not None:
            self._staleness.observe(staleness)
        if sample is not None and label == "accepted":
            self._observe_accepted(sample)

    def _observe_accepted(self, sample: GradientSample) -> None:
        self._unroll.observe(sample.seconds)
        for window, plus, minus in zip(sample.windows, sample.loss_plus, sample.loss_minus, strict=True):
            self._window.observe(window)
            self._pair_loss.labels(sample.objective, window_range(window)).observe((plus + minus) / 2)
        facts = sample.facts
        self._steps.inc(facts.inner_steps or 0)
        self._diverged.inc(facts.diverged or 0)
        self._finished.inc(facts.finished or 0)
        if facts.exchange_seconds is not None:
            self._exchange.observe(facts.exchange_seconds)
        if facts.task_seconds is not None:
            self._task.observe(facts.task_seconds)

    def set_batch(self, samples: int, probe_rate: float = 1.0) -> None:
        self._batch.set(samples)
        self._probe.set(probe_rate)

    def observe_update(self, record: UpdateRecord, objective: str, seconds: float) -> None:
        """One outer update, and how long merge, update and publishing took."""
        self._updates.inc()
        self._update_seconds.observe(seconds)
        self._updated.set(record.time)
        self.set_position(record.epoch, record.version)
        self._loss.labels(objective).set(record.loss)
        self._gradient_norm.set(record.norms.gradient)
        self._update_norm.set(record.norms.update)
        self._theta_norm.set(record.norms.theta)
        self._clipped.set(record.clipped)
        self._senders.set(record.workers_seen)
        self._observe_estimators(record)

    def _observe_estimators(self, record: UpdateRecord) -> None:
        weights = _known(record.weight_rp.quantiles)
        for name, weight in (("rp", weights), ("es", [1 - w for w in reversed(weights)])):
            _set_quantiles(self._weight, name, weight)
        for name, variance, pairs in (("rp", record.var_rp, record.rp_pairs), ("es", record.var_es, record.es_pairs)):
            _set_quantiles(self._variance, name, _known(variance))
            self._pairs.labels(name).inc(pairs)
        self._weight_mean.labels("rp").set(record.weight_rp.mean)
        self._weight_mean.labels("es").set(1 - record.weight_rp.mean)
        self._skipped.inc(max(0, record.es_pairs - record.rp_pairs))
        self._nonfinite.inc(record.rp_nonfinite)

    def checkpoint_written(self, version: int, size_bytes: int, seconds: float, time: float) -> None:
        self._saved_version.set(version)
        self._saved_bytes.set(size_bytes)
        self._save_seconds.observe(seconds)
        self._saved.set(time)

    def checkpoint_failed(self) -> None:
        self._failures.inc()


class FleetMetrics:
    """What the fleet publishes: how many workers there should be, how many there are, and how often they die."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = r = registry or CollectorRegistry()
        prometheus_client.ProcessCollector(registry=r)
        self._target = Gauge("outertrain_workers_target", "Workers asked for.", registry=r)
        self._workers = Gauge("outertrain_workers", "Workers by state.", ["state"], registry=r)
        self._nodes = Gauge("outertrain_node_workers", "Running workers by machine.", ["node"], registry=r)
        self._restarts = Counter("outertrain_worker_restarts", "Workers that ended unasked.", registry=r)
        self._restarts_before = 0

    def observe_status(self, status: FleetStatus) -> None:
        """Publishes the fleet's status. The labels of the states are older than the names of the record's fields."""
        self._target.set(status.target)
        for label, count in (
            ("starting", status.starting),
            ("running", status.running),
            ("leaving", status.draining),
            ("given_up", status.abandoned),
        ):
            self._workers.labels(label).set(count)
        self._nodes.clear()
        for node, count in status.nodes.items():
            self._nodes.labels(node).set(count)
        self._restarts.inc(max(0, status.restarts - self._restarts_before))
        self._restarts_before = status.restarts


class Endpoint:
    """A running HTTP server for one registry; `address` and `port` say where it really listens."""

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        """Port 0 takes a free one. UserError if the port is taken, forbidden, or the address is not this machine's."""
        try:
            self._server, self._thread = prometheus_client.start_http_server(port, address, registry)
        except OSError as error:
            raise UserError(_port_sentence(address, port, error)) from error
        self.address, self.port = address, int(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def exposition(registry: CollectorRegistry) -> str:
    """The endpoint's text, as a scrape would read it."""
    return prometheus_client.generate_latest(registry).decode()


def build_versions() -> dict[str, str]:
    """Installed versions of outertrain and of what decides its numbers; nothing is imported."""
    names = {"version": "outertrain", "jax": "jax", "optax": "optax", "ray": "ray"}
    return {label: metadata.version(name) for label, name in names.items()}


def _free_bytes(folder: Path) -> float:
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return math.nan


def _known(quantiles: Quantiles) -> list[float]:
    """An estimator that was not computed has no variance: NaN, which a panel leaves out."""
    return [math.nan if value is None else value for value in quantiles]


def _set_quantiles(gauge: Gauge, estimator: str, values: Sequence[float]) -> None:
    for q, value in zip(QUANTILES, values, strict=True):
        gauge.labels(estimator, q).set(value)


def _port_sentence(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"metrics.port = {port} on {address} is taken by another program: choose another one, or 0 for a free one"
        )
    reason = (error.strerror or str(error)).lower()
    return f"the metrics endpoint cannot listen on {address}:{port} ({reason}): set metrics.address and metrics.port"
