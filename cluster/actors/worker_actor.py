"""A worker as a Ray actor: `cluster.actors.worker_loop.WorkerLoop` in a process with one core."""

import os
from collections.abc import Mapping
from typing import Any

import ray

from cluster.actors.base import actor_class
from cluster.actors.exchange_client import ExchangeClient
from cluster.actors.ray_exchange import exchange_with, find_aggregator, find_learner
from cluster.actors.worker_loop import WorkerLoop
from cluster.actors.worker_program import load_program, parse_config
from cluster.jobs.job import Json
from common import runtime


class WorkerActor:
    """Its one long call is `run`; when that returns or raises, the worker is gone."""

    def __init__(self, program: str, config: str, uid: str):
        """Arguments as those of `load_program`."""
        self._pinned = runtime.prepare() is not None
        os.nice(5)  # lower priority than the learner of the same machine
        self._program, self._config, self._uid = program, config, uid
        self._loop = WorkerLoop()

    @ray.method(concurrency_group="control")
    def node(self) -> tuple[str, bool]:
        """The address of this node, and whether this process is pinned: the first reply of a worker that has started."""
        return str(ray.util.get_node_ip_address()), self._pinned

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="run")
    def run(self) -> None:
        aggregated = parse_config(self._config).workers.aggregate > 0
        find = find_aggregator if aggregated else find_learner
        # A restarted aggregator does not remember which samples it has received, so none is sent to it twice.
        exchange = ExchangeClient(exchange_with(find), self._loop.stopping, resend=not aggregated)
        self._loop.run(load_program(self._program, self._config, self._uid, exchange))

    @ray.method(concurrency_group="jobs")
    def perform(self, job: Json) -> Json:
        """Returns the result of a job, computed after those queued before it."""
        return self._loop.perform(job)

    @ray.method(concurrency_group="control")
    def shut_down(self) -> None:
        """Lets `run` return after the sample in flight."""
        self._loop.shut_down()


def start_worker(program: str, config: str, uid: str, options: Mapping[str, Any]) -> Any:
    """Starts a worker and returns its handle. `options` are Ray's."""
    created = actor_class(WorkerActor, {"max_restarts": 0, **options}, run=1, jobs=2, control=2)
    return created.remote(program, config, uid)
