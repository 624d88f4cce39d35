"""The Prometheus metrics of a fleet manager: its workers, by state and by node."""

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge

from cluster.monitoring.fleet_status import FleetStatus

prometheus_client.disable_created_metrics()  # one more series per counter, which nothing reads


class FleetMetrics:
    """Metrics of the fleet manager: workers by state and node, and restarts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = r = registry or CollectorRegistry()
        prometheus_client.ProcessCollector(registry=r)
        self._target = Gauge("outertrain_workers_target", "Number of workers requested.", registry=r)
        self._workers = Gauge("outertrain_workers", "Workers, by state.", ["state"], registry=r)
        self._nodes = Gauge("outertrain_node_workers", "Running workers, by node.", ["node"], registry=r)
        self._pinned = Gauge(
            "outertrain_node_workers_pinned", "Running workers with a core of their own, by node.", ["node"], registry=r
        )
        self._restarts = Counter("outertrain_worker_restarts", "Workers that exited unexpectedly.", registry=r)
        self._restarts_before = 0

    def observe_status(self, status: FleetStatus) -> None:
        """Publishes the fleet's status. The labels of the states are older than the names of the record's fields."""
        self._target.set(status.target)
        counts = (status.starting, status.running, status.draining, status.abandoned)
        for label, count in zip(("starting", "running", "leaving", "given_up"), counts):
            self._workers.labels(label).set(count)
        self._nodes.clear()
        self._pinned.clear()
        for node, count in status.nodes.items():
            self._nodes.labels(node).set(count)
            self._pinned.labels(node).set(status.pinned.get(node, 0))
        self._restarts.inc(max(0, status.restarts - self._restarts_before))
        self._restarts_before = status.restarts
