"""history.jsonl: a line per outer update, and its reader, which sees one lineage."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import jsonlines
from common.messages import GradientSample
from common.moments import variance
from learner.lineage import Position, counts, lineage
from learner.merge import Merged, calm
from learner.outer_optimizer import Step, norm

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
_LARGEST = sys.float_info.max
FILE = "history.jsonl"


def read_history(run: Path) -> list[dict[str, Any]]:
    """The lines of the run's lineage, by version; what an older epoch wrote past its child's parent is left out."""
    return _on_lineage(run)(jsonlines.read(run / FILE))


def read_newest(run: Path, count: int) -> list[dict[str, Any]]:
    """The last `count` of them, from the end of the file: starting a learner must not cost more the older its run is."""
    return jsonlines.read_last(run / FILE, count, _on_lineage(run))


def _on_lineage(run: Path) -> Callable[[Iterable[dict[str, Any]]], list[dict[str, Any]]]:
    chain = lineage(run / "epochs")

    def select(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        by_version = {
            line["version"]: line
            for line in lines
            if isinstance(line.get("version"), int)
            and isinstance(line.get("epoch"), int)
            and counts(chain, Position(line["epoch"], line["version"]))
        }
        return [by_version[version] for version in sorted(by_version)]

    return select


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
