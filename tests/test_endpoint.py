"""The metrics endpoint: it serves its registry, and says what is wrong when it cannot."""

import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from cluster.monitoring.endpoint import Endpoint
from cluster.monitoring.metrics import LearnerMetrics
from common.errors import UserError


@pytest.fixture
def registry() -> CollectorRegistry:
    return LearnerMetrics().registry


def test_endpoint_serves_its_registry_on_a_free_port(registry: CollectorRegistry) -> None:
    endpoint = Endpoint(registry, "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=10) as answer:
            assert b"outertrain_updates_total 0.0" in answer.read()
    finally:
        endpoint.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", endpoint.port)) != 0


def test_endpoint_port_in_use_is_a_user_error(registry: CollectorRegistry) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"metrics.port = {port} on 127.0.0.1 is in use .* or 0 for a free one"):
            Endpoint(registry, "127.0.0.1", port)


def test_endpoint_foreign_address_is_a_user_error(registry: CollectorRegistry) -> None:
    with pytest.raises(UserError, match=r"cannot listen on 192.0.2.1:0 .*: set metrics.address"):
        Endpoint(registry, "192.0.2.1", 0)
