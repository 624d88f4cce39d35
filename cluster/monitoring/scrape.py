"""What an endpoint says right now: its metrics by name and labels, read over HTTP from the text that Prometheus reads."""

import re
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import NamedTuple

from cluster.monitoring.targets import read_address
from cluster.runs.directory import RunDirectory

Key = tuple[str, frozenset[tuple[str, str]]]  # name, labels
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not reach a cluster's machines
_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Readings(NamedTuple):
    """Values of one moment. `found`: the process has announced an endpoint; `values` is None if it does not answer."""

    found: bool
    values: Mapping[Key, float] | None

    def get(self, name: str, **labels: str) -> float | None:
        return (self.values or {}).get((name, frozenset(labels.items())))

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of one metric by one of its labels, summed over the others."""
        sums: dict[str, float] = {}
        for (other, labels), value in (self.values or {}).items():
            key = dict(labels).get(label)
            if other == name and key is not None:
                sums[key] = sums.get(key, 0.0) + value
        return sums


def parse(text: str) -> dict[Key, float]:
    """The samples of the text exposition format; comments and what is no sample are left out."""
    matches = (_LINE.match(line) for line in text.splitlines())
    return {(m[1], frozenset(_LABEL.findall(m[2] or ""))): float(m[3]) for m in matches if m}


def read(run: RunDirectory, role: str, timeout: float = 2.0) -> Readings:
    """The endpoint of a run's "learner" or "fleet"."""
    address = read_address(run, role)
    if address is None:
        return Readings(False, None)
    try:
        with DIRECT.open(f"http://{address}/metrics", timeout=timeout) as answer:
            return Readings(True, parse(answer.read().decode()))
    except (OSError, HTTPException, ValueError):
        return Readings(True, None)
