"""history.jsonl: a line per outer update. Its writer loses no line to a full disk, its reader sees one lineage."""

import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.messages import GradientSample
from common.moments import variance
from learner.lineage import Position, counts, lineage
from learner.merge import Merged, calm
from learner.outer_optimizer import Step, norm

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
_LARGEST = sys.float_info.max
_WAITING = 1000  # lines kept while the disk is full
_REACH = 2**16  # bytes of the first look at the end of a file, where a line has about 1,000


class History:
    """Appends lines. After a failed write the lines wait, and a torn one is closed off before the next.

    Not fsynced: a power cut may take the last lines, never a checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque(maxlen=_WAITING)
        self._torn = _ends_inside_a_line(path)

    def add(self, line: Mapping[str, Any]) -> None:
        """Notes a line for the next `flush`."""
        self._waiting.append(json.dumps(line, allow_nan=False).encode() + b"\n")

    def flush(self) -> None:
        """Writes what waits. Raises OSError; everything then waits for the next one."""
        data = b"\n" * self._torn + b"".join(self._waiting)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._torn = True
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
        self._torn = False
        self._waiting.clear()


def _ends_inside_a_line(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read_history(run: Path) -> list[dict[str, Any]]:
    """The lines of the run's lineage, by version; what an older epoch wrote past its child's parent is left out."""
    path = run / "history.jsonl"
    if not path.exists():
        return []
    with open(path, "rb") as file:
        return _living(_lines(file), lineage(run / "epochs"))


def read_newest(run: Path, count: int) -> list[dict[str, Any]]:
    """The last `count` of them, from the end of the file: starting a learner must not cost more the older its run is."""
    path, chain = run / "history.jsonl", lineage(run / "epochs")
    if not path.exists():
        return []
    with open(path, "rb") as file:
        size, reach = file.seek(0, os.SEEK_END), _REACH
        while True:
            file.seek(max(0, size - reach))
            if reach < size:
                file.readline()  # most likely the rest of one
            found = _living(_lines(file), chain)[-count:]
            if len(found) == count or reach >= size:
                return found
            reach *= 4


def _living(lines: Iterable[dict[str, Any]], chain: dict[int, int]) -> list[dict[str, Any]]:
    """Those on the lineage, by version."""
    by_version = {line["version"]: line for line in lines if counts(chain, Position(line["epoch"], line["version"]))}
    return [by_version[version] for version in sorted(by_version)]


def _lines(file: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Whole lines; what a crash tore is skipped."""
    for raw in file:
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("version"), int) and isinstance(line.get("epoch"), int):
            yield line


def describe_samples(samples: Sequence[GradientSample], version: int, pairs: int) -> dict[str, Any]:
    """What a batch looked like when it was applied to `version`; losses are means over pairs."""
    plus, minus = (np.concatenate([getattr(s, name) for s in samples]) for name in ("loss_plus", "loss_minus"))
    windows = np.concatenate([s.windows for s in samples])
    behind = np.array([version - s.version for s in samples])
    return {
        "loss": _number((plus.mean() + minus.mean()) / 2),
        "loss_plus": _number(plus.mean()),
        "loss_minus": _number(minus.mean()),
        "samples": len(windows) // pairs,
        "inner_steps": _total(samples, "inner_steps"),
        "windows": {"mean": float(windows.mean()), "min": int(windows.min()), "max": int(windows.max())},
        "staleness": {"mean": float(behind.mean()), "max": int(behind.max())},
        "diverged": _total(samples, "diverged"),
        "finished": _total(samples, "finished"),
        "workers_seen": len({s.worker for s in samples}),
        "rp_nonfinite": sum(not calm(s.rp) for s in samples),
    }


def describe_step(merged: Merged, step: Step) -> dict[str, Any]:
    """What merge and update did; variances are per pair, quantiles over coordinates."""
    return {
        "weight_rp": {"mean": float(merged.weight_rp.mean()), **_quantiles(merged.weight_rp)},
        "var_rp": _quantiles(variance(merged.rp)),
        "var_es": _quantiles(variance(merged.es)),
        "rp_fallback": merged.fallback,
        "rp_pairs": merged.rp.count,
        "es_pairs": merged.es.count,
        "gradient_norm": _number(step.gradient_norm),
        "clipped": step.clipped,
        "update_norm": _number(step.update_norm),
        "theta_norm": _number(norm(step.theta.astype(np.float64))),
        "refused": step.refused,
    }


def _total(samples: Sequence[GradientSample], fact: str) -> int:
    return int(sum(s.facts.get(fact, 0.0) for s in samples))


def _quantiles(values: np.ndarray) -> dict[str, float | None]:
    """Of the finite values; null where there is none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return dict.fromkeys(_QUANTILES)
    return dict(zip(_QUANTILES, np.quantile(finite, list(_QUANTILES.values())).tolist(), strict=True))


def _number(value: float) -> float:
    """JSON has no infinity: the largest number stands for it."""
    return float(np.clip(value, -_LARGEST, _LARGEST))
