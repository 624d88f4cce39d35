"""The fleet as a Ray actor: `cluster.actors.fleet.Fleet`, ticking in a thread, with a metrics endpoint."""

import os
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from cluster.actors.aggregator_actor import start_aggregator
from cluster.actors.base import actor_class, retried_by_ray
from cluster.actors.fleet import Fleet, Limits
from cluster.actors.ray_workers import RayWorkers
from cluster.actors.run_reader import RunReader
from cluster.actors.worker_actor import start_worker
from cluster.monitoring import targets
from cluster.monitoring.endpoint import Endpoint
from cluster.monitoring.fleet_metrics import FleetMetrics
from cluster.monitoring.fleet_status import FleetStatus
from cluster.runs.directory import RunDirectory

TICK_S = 0.25


@dataclass(frozen=True)
class FleetSpec:
    """What a fleet runs."""

    run: Path  # the run directory
    program: str  # of its workers, as `load_program` takes it
    workers: int | None = None  # the target; None: the one saved in the run directory
    worker_options: Mapping[str, Any] = field(default_factory=dict)  # Ray's, of each worker
    announced: bool = True  # the fleet of the run, which Prometheus watches; others may work alongside it


class FleetActor(RunReader):
    """Owns the worker actors: they end with its process."""

    def __init__(self, spec: FleetSpec):
        with retried_by_ray():
            self._start(RunDirectory(spec.run), spec)

    def _start(self, run: RunDirectory, spec: FleetSpec) -> None:
        self._run, self._announced = run, spec.announced
        self._failure = run.last_failure() if spec.announced else None  # saved before a restart
        run.start_log()
        self._config_text, config = run.config_file.read_text(), run.config()
        self._workers = RayWorkers(lambda uid: start_worker(spec.program, self._config_text, uid, spec.worker_options))
        self._aggregators: dict[str, Any] = {}
        target = (run.worker_target() or 0) if spec.workers is None else spec.workers
        self._fleet = Fleet(target, self._workers, run.save_worker_target, Limits(grace=config.workers.grace))
        self._metrics = FleetMetrics()
        if spec.announced:
            self._endpoint = Endpoint(self._metrics.registry, config.metrics.address, 0)
            targets.write_targets(run, targets.FLEET, self._endpoint.address, self._endpoint.port)
        self._lock = threading.Lock()
        threading.Thread(target=self._tick_forever, daemon=True).start()

    def _tick_forever(self) -> None:
        try:
            while True:
                with self._lock:
                    self._fleet.tick(time.monotonic())
                    self._publish(self._fleet.status())
                    pending = self._workers.pending()
                self._workers.wait(pending, TICK_S)
        finally:  # a fleet that no longer ticks must not look alive: its process exits, and Ray restarts it
            traceback.print_exc()
            os._exit(1)

    def _publish(self, status: FleetStatus) -> None:
        self._metrics.observe_status(status)
        if self._announced and status.last_failure != self._failure:
            self._failure = status.last_failure
            with suppress(OSError):  # a full disk must not end the workers
                self._run.save_failure(self._failure)

    @ray.method(concurrency_group="control")
    def scale(self, target: int) -> None:
        with self._lock:
            self._fleet.scale(target)

    @ray.method(concurrency_group="control")
    def drain(self) -> None:
        with self._lock:
            self._fleet.drain()

    @ray.method(concurrency_group="control")
    def close(self) -> None:
        """Removes what announces the fleet to Prometheus, before its process is ended."""
        if self._announced:
            targets.remove_targets(self._run, targets.FLEET)

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="control")
    def status(self) -> FleetStatus:
        with self._lock:
            return self._fleet.status()

    @ray.method(concurrency_group="control")
    def workers(self) -> dict[str, Any]:
        """Handles of the running workers by uid, for jobs."""
        with self._lock:
            return self._workers.handles(self._fleet.running())

    @ray.method(concurrency_group="control")
    def aggregator(self, node: str) -> Any:
        """Returns the handle of a node's aggregator, which is started on the first call."""
        with self._lock:
            if node not in self._aggregators:
                self._aggregators[node] = start_aggregator(self._config_text, node)
            return self._aggregators[node]


def start_fleet(spec: FleetSpec, **options: Any) -> Any:
    """Starts a fleet and returns its handle. `options` are Ray's, of the fleet itself."""
    return actor_class(FleetActor, {"name": targets.FLEET, "max_restarts": -1, **options}, control=4).remote(spec)
