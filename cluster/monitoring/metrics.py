"""Every Prometheus metric of a learner, declared once; those of the fleet manager are in `cluster.monitoring.fleet_metrics`.

The registry is injected, so that two learners in one process do not share metrics. No metric carries the name of a worker.
The labels `run` and `role` are not here; Prometheus adds them from the target file (`cluster.monitoring.targets`).
"""

import math
import shutil
from collections import deque
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary

from cluster.monitoring.family_metrics import FamilyMetrics
from common.config import Config, OuterConfig
from common.messages import GradientSample, Verdict
from common.update_record import LEVELS, Quantiles, UpdateRecord, expected_updates

prometheus_client.disable_created_metrics()  # one more series per counter and histogram, which nothing reads

STALENESS: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # versions
STEPS: Final = (10, 30, 100, 300, 1000, 3000, 10000)  # inner steps; also the window ranges of the outer loss
SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
BYTES: Final = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
INTERVALS: Final = 20  # between updates, that the published one is the mean of
QUANTILES: Final = tuple(str(level) for level in LEVELS)  # values of the label `q`


def window_range(steps: int) -> str:
    """The label of the range of a window: its inclusive upper bound, as `le` of a histogram."""
    return next((str(end) for end in STEPS if steps <= end), "+Inf")


class LearnerMetrics:
    """Metrics of a learner: samples, outer updates, estimators, checkpoints."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._outer = OuterConfig()  # until `start`
        self._times = deque[float](maxlen=INTERVALS + 1)  # of the last updates of this process
        prometheus_client.ProcessCollector(registry=self.registry)
        self._declare_run()
        self._declare_samples()
        self._declare_updates()
        self._declare_estimators()
        self._declare_checkpoints()
        self._families = FamilyMetrics(self.registry)

    def _declare_run(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        info = partial(Info, registry=self.registry)
        self._build = info("outertrain_build", "Installed versions of outertrain and of its main dependencies.")
        self._run = info("outertrain_run", "Configuration of the run that alerts depend on.")
        self._epoch = gauge("outertrain_epoch", "Epoch of the learner: it grows by one with each start.")
        self._version = gauge("outertrain_version", "Version of theta: its number of outer updates.")
        self._target = gauge("outertrain_target_updates", "Outer updates of the whole run, as expected now.")
        self._limit = gauge("outertrain_staleness_limit", "Largest accepted staleness in versions; -1: no limit.")
        self._clamp = gauge("outertrain_outer_loss_clamp", "Clamp of the outer loss, its largest value.")
        self._batch_size = gauge("outertrain_batch_target_samples", "Samples of one batch, for one outer update.")
        self._disk = gauge("outertrain_disk_free_bytes", "Free disk space for the run directory.")

    def _declare_samples(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        summary = partial(Summary, registry=self.registry)
        samples = counter("outertrain_samples", "Samples received, by verdict.", ["verdict"])
        # a series that begins at its first sample hides that sample from `rate`
        self._by_verdict = {verdict.value: samples.labels(verdict.value) for verdict in Verdict}
        self._batch = gauge("outertrain_batch_samples", "Samples in the batch that is being collected.")
        self._staleness = histogram(
            "outertrain_staleness_versions", "Staleness of received samples, in versions.", buckets=STALENESS
        )
        self._payload = histogram("outertrain_payload_bytes", "Size of the payloads of samples.", buckets=BYTES)
        self._window = histogram(
            "outertrain_window_steps", "Window of the truncations of accepted samples, in inner steps.", buckets=STEPS
        )
        self._unroll = histogram("outertrain_unroll_seconds", "Time to unroll a sample.", buckets=SECONDS)
        self._exchange = histogram(
            "outertrain_exchange_seconds", "Duration of an exchange, measured by the worker.", buckets=SECONDS
        )
        self._task = histogram("outertrain_task_seconds", "Time to create the new tasks of a sample.", buckets=SECONDS)
        self._pair_loss = summary(
            "outertrain_pair_loss", "Outer loss of pairs, by the upper bound of their window.", ["objective", "window"]
        )
        self._steps = counter("outertrain_inner_steps", "Inner training steps of accepted samples.")
        problems = counter("outertrain_inner_problems", "Inner problems that ended, by outcome.", ["outcome"])
        self._diverged, self._finished = problems.labels("diverged"), problems.labels("finished")

    def _declare_updates(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._updates = counter("outertrain_updates", "Outer updates applied by this process.")
        self._updated = gauge("outertrain_last_update_timestamp_seconds", "Unix time of the last outer update.")
        self._interval = gauge(
            "outertrain_update_interval_seconds",
            "Mean time between the last 20 outer updates of this process; 0 before the second one.",
        )
        self._update_seconds = histogram(
            "outertrain_update_seconds", "Time to merge a batch, update theta and publish it.", buckets=SECONDS
        )
        self._loss = gauge("outertrain_outer_loss", "Mean outer loss of the last batch.", ["objective"])
        self._gradient_norm = gauge(
            "outertrain_gradient_norm", "Euclidean norm of the last merged gradient, before clipping."
        )
        self._update_norm = gauge("outertrain_update_norm", "Euclidean norm of the last step of theta.")
        self._theta_norm = gauge("outertrain_theta_norm", "Euclidean norm of theta.")
        self._clipped = gauge(
            "outertrain_gradient_clipped_ratio", "Fraction of coordinates that clipping changed in the last update."
        )
        self._senders = gauge("outertrain_workers_seen", "Senders of the last batch: workers, or aggregators.")

    def _declare_estimators(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        labels = ["estimator", "q"]
        self._variance = gauge(
            "outertrain_estimator_variance", "Variance of one pair, quantiles over coordinates.", labels
        )
        self._weight = gauge("outertrain_estimator_weight", "Merge weight, quantiles over coordinates.", labels)
        self._weight_mean = gauge(
            "outertrain_estimator_mean_weight", "Merge weight, mean over coordinates.", ["estimator"]
        )
        self._pairs = counter("outertrain_pairs", "Pairs in applied batches, by estimator.", ["estimator"])
        self._skipped = counter("outertrain_rp_skipped_pairs", "Pairs in applied batches that did not compute rp.")
        self._nonfinite = counter("outertrain_rp_nonfinite_pairs", "Samples of applied batches with exploded rp.")
        self._infinite = gauge(
            "outertrain_rp_infinite_variance_ratio", "Fraction of coordinates with infinite variance of rp."
        )
        self._dropped = counter("outertrain_rp_dropped_pairs", "Pairs left out under estimator.use = 'rp': not finite.")
        self._clipped_pairs = counter("outertrain_rp_clipped_pairs", "Pairs clipped by rp_nonfinite = 'clip'.")
        self._empty = counter("outertrain_empty_updates", "Outer updates of zero gradient: all pairs were left out.")
        self._probe = gauge("outertrain_probe_ratio", "Fraction of samples that are to compute rp.")
        self._worth = gauge("outertrain_rp_worth_ratio", "Fraction of the variance of es that rp removes (allocate).")

    def _declare_checkpoints(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._saved = gauge(
            "outertrain_checkpoint_timestamp_seconds", "Unix time at which the last checkpoint became durable."
        )
        self._saved_version = gauge("outertrain_checkpoint_version", "Last durable version of theta.")
        self._saved_bytes = gauge("outertrain_checkpoint_bytes", "Size of the last checkpoint.")
        self._save_seconds = histogram(
            "outertrain_checkpoint_seconds", "Time until a checkpoint is durable.", buckets=SECONDS
        )
        self._failures = counter("outertrain_checkpoint_failures", "Checkpoints that could not be written.")

    def start(self, config: Config, run: str = "") -> None:
        """Call once: publishes the identity of the `run`, versions, and the configuration that alerts compare with."""
        self._build.info(build_versions())
        estimator = config.estimator
        self._run.info(
            {
                "task": ",".join(task.family for task in config.tasks),
                "optimizer": config.optimizer.family,
                "estimator": estimator.use,
                **{key: getattr(estimator, key) for key in ("es", "objective", "merge")},
                "identity": run,
            }
        )
        self._outer = config.outer
        self._target.set(config.outer.updates)
        self._batch_size.set(config.outer.batch_samples)
        self._limit.set(config.outer.max_staleness)
        self._clamp.set(estimator.clamp)

    def resume(self, newest: UpdateRecord | None, durable_version: int, durable_time: float) -> None:
        """Call once, after `start`: publishes where the run stands until this process has applied its first update.

        Args:
          newest: the record of the run's last update; None: it has none.
          durable_time: when `durable_version` was written, unix seconds.
        """
        self._target.set(expected_updates(self._outer, newest))
        self._set_saved(durable_version, durable_time)

    def set_position(self, epoch: int, version: int) -> None:
        self._epoch.set(epoch)
        self._version.set(version)

    def watch_disk(self, folder: Path) -> None:
        """Publishes the free space of `folder`, read at every scrape."""
        self._disk.set_function(lambda: _free_bytes(folder))

    def observe_verdict(
        self, label: str, payload_bytes: int, sample: GradientSample | None, staleness: int | None, samples: int = 1
    ) -> None:
        """Counts a judged payload. `sample` is None if it was malformed, `staleness` if it is undefined.

        Args:
          samples: of workers, which it stands for.
        """
        self._by_verdict[label].inc(samples)
        self._payload.observe(payload_bytes)
        if staleness is not None:
            for _ in range(samples):  # those of an aggregate were computed with the same parameters
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
        """Publishes an outer update, and how many seconds merge, update and publishing took."""
        self._updates.inc()
        self._update_seconds.observe(seconds)
        self._updated.set(record.time)
        self._times.append(record.time)
        self._interval.set((self._times[-1] - self._times[0]) / max(len(self._times) - 1, 1))
        self._target.set(expected_updates(self._outer, record))
        self.set_position(record.epoch, record.version)
        self._loss.labels(objective).set(record.loss)
        self._gradient_norm.set(record.norms.gradient)
        self._update_norm.set(record.norms.update)
        self._theta_norm.set(record.norms.theta)
        self._clipped.set(record.clipped)
        self._senders.set(record.workers_seen)
        self._observe_estimators(record)
        self._families.observe(record.families)

    def _observe_estimators(self, record: UpdateRecord) -> None:
        weights = _known(record.weight_rp.quantiles)
        for name, weight in (("rp", weights), ("es", [1 - w for w in reversed(weights)])):
            _set_quantiles(self._weight, name, weight)
        for name, variance, pairs in (("rp", record.var_rp, record.rp_pairs), ("es", record.var_es, record.es_pairs)):
            _set_quantiles(self._variance, name, _known(variance))
            self._pairs.labels(name).inc(pairs)
        self._weight_mean.labels("rp").set(record.weight_rp.mean)
        self._weight_mean.labels("es").set(1 - record.weight_rp.mean)
        self._skipped.inc(max(0, record.es_pairs - record.rp_pairs - record.rp_dropped))
        self._infinite.set(record.var_rp_nonfinite)
        self._dropped.inc(record.rp_dropped)
        self._clipped_pairs.inc(record.rp_clipped)
        self._empty.inc(record.empty)
        self._nonfinite.inc(record.rp_nonfinite)
        if record.allocation:
            self._worth.set(record.allocation.worth)

    def checkpoint_written(self, version: int, size_bytes: int, seconds: float, time: float) -> None:
        self._set_saved(version, time)
        self._saved_bytes.set(size_bytes)
        self._save_seconds.observe(seconds)

    def _set_saved(self, version: int, time: float) -> None:
        self._saved_version.set(version)
        self._saved.set(time)

    def checkpoint_failed(self) -> None:
        self._failures.inc()


def build_versions() -> dict[str, str]:
    """Installed versions of outertrain and of the packages that its numbers depend on. Imports none of them."""
    names = {"version": "outertrain", "jax": "jax", "optax": "optax", "ray": "ray"}
    return {label: metadata.version(name) for label, name in names.items()}


def _free_bytes(folder: Path) -> float:
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return math.nan


def _known(quantiles: Quantiles) -> list[float]:
    """The quantiles with NaN for None: panels leave out an estimator that was not computed."""
    return [math.nan if value is None else value for value in quantiles]


def _set_quantiles(gauge: Gauge, estimator: str, values: Sequence[float]) -> None:
    for q, value in zip(QUANTILES, values, strict=True):
        gauge.labels(estimator, q).set(value)
