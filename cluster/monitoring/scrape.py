"""Scrapes the metrics endpoints of a run over HTTP, in the text format that Prometheus reads."""

import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from cluster.monitoring.targets import read_address
from cluster.runs.directory import RunDirectory

Key = tuple[str, frozenset[tuple[str, str]]]  # name, labels
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach the machines of a cluster


class Scrape(NamedTuple):
    """The samples of one endpoint at one moment."""

    announced: bool  # the process has written a target file
    samples: Mapping[Key, float] | None  # None: the endpoint does not respond

    def get(self, name: str, **labels: str) -> float | None:
        """The value of one series, or None."""
        return (self.samples or {}).get((name, frozenset(labels.items())))

    def label(self, name: str, label: str) -> str | None:
        """A label of the only series of a metric, or None."""
        found = (dict(labels).get(label) for other, labels in self.samples or {} if other == name)
        return next(found, None)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of a metric by one of its labels, summed over the others."""
        sums: dict[str, float] = {}
        for (other, labels), value in (self.samples or {}).items():
            key = dict(labels).get(label)
            if other == name and key is not None:
                sums[key] = sums.get(key, 0.0) + value
        return sums


def parse(text: str) -> dict[Key, float]:
    """The samples of the text exposition format. Raises ValueError for other text."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def scrape(run: RunDirectory, role: str, timeout: float = 2.0) -> Scrape:
    """Scrapes the endpoint of a run's "learner" or "fleet"; `timeout` in seconds."""
    address = read_address(run, role)
    if address is None:
        return Scrape(False, None)
    try:
        with DIRECT.open(f"http://{address}/metrics", timeout=timeout) as answer:
            return Scrape(True, parse(answer.read().decode()))
    except (OSError, HTTPException, ValueError):
        return Scrape(True, None)
