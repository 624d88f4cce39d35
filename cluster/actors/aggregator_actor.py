"""An aggregator as a Ray actor: `learner.aggregator.Aggregator` for the workers of one node."""

import secrets
import threading
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.base import actor_class
from cluster.actors.exchange_client import ExchangeClient
from cluster.actors.ray_exchange import exchange_with, find_learner
from cluster.actors.worker_program import parse_config
from learner.aggregator import Aggregator


class AggregatorActor:
    """Merges the samples of its node's workers before it sends them to the learner."""

    def __init__(self, config: str):
        """`config`: the run's configuration as TOML."""
        parsed = parse_config(config)
        uid = f"a-{secrets.token_hex(4)}"  # another one after each restart
        exchange = ExchangeClient(exchange_with(find_learner), threading.Event())
        self._aggregator = Aggregator(parsed, uid, exchange, parsed.workers.aggregate)

    @ray.method(concurrency_group="exchange")
    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        """`learner.aggregator.Aggregator.exchange`."""
        return self._aggregator.exchange(payload, epoch, version)


def start_aggregator(config: str, node: str) -> Any:
    """Starts the aggregator of a node, given by Ray's id, and returns its handle."""
    on_node = NodeAffinitySchedulingStrategy(node, soft=False)
    created = actor_class(AggregatorActor, {"max_restarts": -1, "scheduling_strategy": on_node}, exchange=64)
    return created.remote(config)
