"""The HTTP endpoint at which Prometheus scrapes the metrics of a process."""

import errno

import prometheus_client
from prometheus_client import CollectorRegistry

from common.errors import UserError


class Endpoint:
    """A running HTTP server for one registry, which listens on `address` and `port`."""

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        """Starts to listen; port 0 takes a free one.

        Raises:
          UserError: the port is in use or forbidden, or the address is not one of this machine.
        """
        try:
            self._server, self._thread = prometheus_client.start_http_server(port, address, registry)
        except OSError as error:
            raise UserError(_port_sentence(address, port, error)) from error
        self.address, self.port = address, int(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _port_sentence(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"metrics.port = {port} on {address} is in use by another program: choose another port, or 0 for a free one"
        )
    reason = (error.strerror or str(error)).lower()
    return f"the metrics endpoint cannot listen on {address}:{port} ({reason}): set metrics.address and metrics.port"
