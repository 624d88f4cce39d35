"""A run directory made of plausible files, without a run: what report and watch are tested on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.report import page
from common.config import Config
from common.configfile import dump
from common.update_record import Norms, Quantiles, Staleness, UpdateRecord, Weight, Windows
from learner.lineage import claim
from workers.evaluation.results import BySplit, UnrollResult, block_ends

RATES = [float(f"{rate:.6g}") for rate in np.geomspace(1e-4, 10, 11)]
STEPS = list(range(0, 500, 10))


def history(updates: int = 200, seed: int = 0) -> list[UpdateRecord]:
    """A record per outer update: the loss falls, the variance of rp explodes, its weight vanishes."""
    rng = np.random.default_rng(seed)
    return [_record(v, updates, rng) for v in range(1, updates + 1)]


def _record(version: int, updates: int, rng: np.random.Generator) -> UpdateRecord:
    progress = version / updates
    loss = 0.9 + 1.3 * float(np.exp(-5 * progress)) + 0.05 * float(rng.normal())
    rp = 10 ** (-6 + 12 * progress + 0.3 * float(rng.normal()))
    es, window = 10 ** (-1 + 0.1 * float(rng.normal())), 20 + 80 * progress
    weight = es / (es + rp)
    return UpdateRecord(
        epoch=1,
        version=version,
        time=1.7e9 + 1.5 * version,
        seconds=4 + 1.5 * version,
        verdicts={"accepted": 8 * version, "stale": version // 10, "duplicate": 0},
        loss=loss,
        loss_plus=loss + 0.01,
        loss_minus=loss - 0.01,
        samples=8,
        inner_steps=int(16 * window),
        windows=Windows(window, int(0.8 * window), int(1.2 * window)),
        staleness=Staleness(float(rng.uniform(0, 1)), int(rng.integers(0, 4))),
        diverged=0,
        finished=int(rng.integers(0, 2)),
        workers_seen=2,
        rp_nonfinite=0,
        weight_rp=Weight(weight, _quantiles(weight, 1.5, 1.0)),
        var_rp=_quantiles(rp, 30, np.inf),
        var_es=_quantiles(es, 5, np.inf),
        rp_fallback=0,
        rp_pairs=8,
        es_pairs=8,
        norms=Norms(float(np.exp(0.3 * rng.normal())), 0.05, 6 + 2 * progress),
        clipped=float(rng.uniform() < 0.4),
        refused=False,
    )


def _quantiles(median: float, spread: float, most: float) -> Quantiles:
    """log-uniform around the median, `spread` times wider at 5 and 95 %."""
    return Quantiles(*(float(min(median * spread**power, most)) for power in (-1.0, -0.4, 0.0, 0.4, 1.0)))


def unroll(name: str, rate: float | None, task: int, start: int, version: int | None = None) -> dict[str, Any]:
    """One learning curve: 2.3 at first, faster down the nearer the rate is to 0.03; the learned one is faster still."""
    off = 0.0 if rate is None else abs(float(np.log10(rate / 0.0316))) + {"adam": 0, "rmsprop": 0.2, "sgd": 0.4}[name]
    pace = (0.02 if name == "learned" else 0.011) * (1 + 0.1 * (task % 5)) / (1 + off**2)

    def loss(steps: Any) -> np.ndarray:
        return 0.3 + 0.05 * (task % 3) + 2.0 * np.exp(-pace * steps) + 0.03 * np.sin(0.05 * steps + start)

    curve = loss(np.asarray(STEPS))
    return {
        "item": f"{name}-{rate}-{task}-{start}-{version}",
        "optimizer": name,
        "theta_sha256": "f" * 64 if name == "learned" else None,
        "rate": rate,
        "task": task,
        "initialisation": start,
        "outer_split": "outer_test",
        "objective": "train",
        "version": version,
        "steps": STEPS,
        "train": curve.tolist(),
        "valid": (curve + 0.1).tolist(),
        "test": (curve + 0.12).tolist(),
        "mean_train": float(curve.mean()),
        "mean_valid": float(curve.mean() + 0.1),
        "mean_test": float(curve.mean() + 0.12),
        "final_test_accuracy": 0.7,
        "seconds_per_step": 0.002 if name == "learned" else 0.0012,
        "losses": loss(block_ends(STEPS[-1])).tolist(),
    }


def constant_result(optimizer: str, task: int, loss: float, **fields: Any) -> UnrollResult:
    """The result of an unroll whose loss stays the same; `fields` replace others of its own."""
    name = f"{optimizer}/{fields.get('rate')}/{fields.get('theta_sha256')}/{task}/{fields.get('initialisation', 0)}"
    known: dict[str, Any] = {
        "theta_sha256": None,
        "objective": "train",
        "rate": None,
        "initialisation": 0,
        "outer_split": "outer_test",
        "version": None,
        "steps": (10, 20),
        "curves": BySplit((loss, loss), (loss, loss), (loss, loss)),
        "means": BySplit(loss, loss, loss),
        "final_test_accuracy": None,
        "seconds_per_step": 0.5,
        "blocks": (loss,) * 20,
    }
    return UnrollResult(name=name, optimizer=optimizer, task=task, **{**known, **fields})


def unrolls(tasks: int = 20, starts: int = 5, baselines: tuple[str, ...] = ("adam",)) -> list[dict[str, Any]]:
    """The learned optimizer at two versions, also on the tasks that choose one, and every baseline at every rate."""
    lines = [unroll("learned", None, 1000 + t, s, 200) for t in range(tasks) for s in range(starts)]
    lines += [unroll("learned", None, 1000 + t, 0, 100) | {"theta_sha256": "e" * 64} for t in range(tasks)]
    lines += [line | {"item": f"choosing-{line['item']}", "outer_split": "outer_train"} for line in lines]
    return lines + [
        unroll(name, rate, 1000 + t, s)
        for name in baselines
        for rate in RATES
        for t in range(tasks)
        for s in range(starts)
    ]


def write_run(folder: Path, updates: list[UpdateRecord], evaluated: list[dict[str, Any]], config: Config) -> Path:
    """A run directory with these histories and evaluations; returns it."""
    (folder / "evaluation").mkdir(parents=True)
    claim(folder / "epochs", None, 0.0)
    (folder / "config.toml").write_text(dump(config))
    (folder / "history.jsonl").write_text("".join(json.dumps(update.to_json()) + "\n" for update in updates))
    (folder / "evaluation" / "unrolls.jsonl").write_text("".join(json.dumps(line) + "\n" for line in evaluated))
    return folder


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures of report pages empty; drawing them takes about a second."""
    monkeypatch.setattr(page, "render", lambda plots, material: [page.Picture(plot, b"") for plot in plots])
