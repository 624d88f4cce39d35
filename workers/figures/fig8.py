"""Figure 8: the ablations (paper section 4.5), and two estimators beyond the paper.

The same budget of inner steps for every variant: merged, rp only, es only; fixed windows of a hundredth (mini: a
fiftieth), a tenth (a fifth) and all of the problem; without momentum or time features; persistent and noise-reuse es.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workers.evaluation.jobs import UnrollJob, encode
from workers.figures.fig5 import PROBING
from workers.figures.figure import Record, Train, Verdict, config_of, evaluator_of, item, of_kind, rounded, row
from workers.figures.statistics import Interval, bootstrap, paired

CLAIM = (
    "Merged is better and steadier than rp or es alone; the growing window beats fixed ones; momentum features are "
    "needed, time features hardly."
)
NEEDS = ()

SCALES: dict[str, dict[str, Any]] = {
    "mini": {
        "base": ("mini", PROBING),
        "windows": [6, 60, 300],  # 2 %, 20 % and 100 % of the problem
        "growing": (10, 150),
        "budget": 48_000,  # inner steps of all pairs of one training (a pair's two unrolls count once)
        "seeds": 6,
        "tasks": 8,
    },
    "paper": {
        "base": ("paper",),
        "windows": [10, 100, 1000],
        "growing": (50, 10_000),
        "budget": 4_000_000_000,  # 400,000 inner problems
        "seeds": 5,
        "tasks": 40,
    },
}
NOTHING: tuple[str, ...] = ()
LAST = (0.8, 0.9, 1.0)  # shares of a training whose theta are judged, as the paper averages over its end


def variants(chosen: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], tuple[int, int]]]:
    """By name: overrides, and the window's start and end."""
    growing = chosen["growing"]
    fixed = {f"window {window}": (NOTHING, (window, window)) for window in chosen["windows"]}
    return {
        "merged": (NOTHING, growing),
        "rp only": (("estimator.use=rp",), growing),
        "es only": (("estimator.use=es",), growing),
        **fixed,
        "no momentum": (("optimizer.momentum_features=false",), growing),
        "no time": (("optimizer.time_features=false",), growing),
        "persistent es": (("estimator.use=es", "estimator.es=persistent"), growing),
        "noise-reuse es": (("estimator.use=es", "estimator.es=noise_reuse"), growing),
    }


def items(scale: str, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    chosen = SCALES[scale]
    return [
        training(chosen, name, overrides, window, seed)
        for seed in range(chosen["seeds"])
        for name, (overrides, window) in variants(chosen).items()
    ]


def training(
    chosen: Mapping[str, Any], name: str, overrides: tuple[str, ...], window: tuple[int, int], seed: int
) -> Record:
    """As many outer updates as the budget allows; the window grows over all of them."""
    batch = config_of(chosen["base"]).outer.batch_samples
    updates = max(1, round(chosen["budget"] / (batch * sum(window) / 2)))
    ramp = (f"curriculum.start={window[0]}", f"curriculum.end={window[1]}", f"curriculum.updates={updates}")
    settings = (*chosen["base"], *overrides, *ramp, f"outer.updates={updates}", f"seed={seed}")
    label = f"{name}-seed{seed}".replace(" ", "")
    judged = tuple(o for o in overrides if o.startswith("optimizer."))
    fields = {"variant": name, "seed": seed, "tasks": list(range(3000, 3000 + chosen["tasks"]))}
    return item("fig8", "train", label, settings, judge=[*chosen["base"], *judged], **fields)


def perform(record: Mapping[str, Any], train: Train) -> Record:
    """Trains, and judges the end of the training: mean losses [thetas, tasks] on outer-train tasks."""
    config = config_of(tuple(record["settings"]))
    versions = sorted({round(share * config.outer.updates) for share in LAST})
    trained = train(config, versions)
    evaluator, losses = evaluator_of(tuple(record["judge"])), []
    for version in versions:
        theta = encode(trained.kept[version])
        runs = [UnrollJob("learned", task, theta=theta, outer_split="outer_train") for task in record["tasks"]]
        losses.append([evaluator.run(run).mean("train") for run in runs])
    shown = trained.history[:: max(1, len(trained.history) // 50)]
    return row(
        record,
        losses=rounded(losses),
        history=rounded([update.loss for update in shown]),
        versions=[update.version for update in shown],
        updates=config.outer.updates,
        inner_steps=sum(update.inner_steps for update in trained.history),
        diverged=sum(update.diverged for update in trained.history),
    )


def scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """[seeds] mean loss at the end of training, by variant."""
    table: dict[str, list[float]] = {}
    for r in sorted(of_kind(rows, "fig8", "train"), key=lambda r: r["seed"]):
        table.setdefault(r["variant"], []).append(float(np.mean(r["losses"])))
    return {name: np.array(values) for name, values in table.items()}


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    table = scores(rows)
    gaps = {name: paired(values, table["merged"]) for name, values in table.items() if name != "merged"}
    fixed = [name for name in table if name.startswith("window")]
    parts = {
        "merged better than rp and es alone": all(gaps[name].low > 0 for name in ("rp only", "es only")),
        "and steadier": all(table[name].std() > table["merged"].std() for name in ("rp only", "es only")),
        "growing window better than fixed": all(gaps[name].low > 0 for name in fixed),
        "momentum needed": gaps["no momentum"].low > 0,
        "time hardly": abs(gaps["no time"].value) < abs(gaps["no momentum"].value),
    }
    said = "; ".join(f"{name}: {'holds' if holds else 'does not hold'}" for name, holds in parts.items())
    numbers = "; ".join(f"{name} {gap}" for name, gap in gaps.items())
    seeds = len(table["merged"])
    spread = ", ".join(f"{name} {table[name].std(ddof=1):.2g}" for name in ("merged", "rp only", "es only"))
    return Verdict(
        all(parts.values()),
        f"{said}. Mean loss at the end of training, minus that of merged ({interval(table['merged'])}; {seeds} seeds): "
        f"{numbers}. Standard deviation over seeds: {spread}.",
    )


def interval(values: np.ndarray) -> Interval:
    return bootstrap(values)


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    from common import plotting

    table = scores(rows)
    figure, panels = plotting.panels(
        1, 2, ["mean loss at the end of outer-training", "outer loss while training, merged and its parts"]
    )
    for k, values in enumerate(table.values()):
        panels[0].plot(
            values, np.full(len(values), -k), "o", color=plotting.PALETTE[k % len(plotting.PALETTE)], alpha=0.7
        )
        panels[0].plot(values.mean(), -k, "|", color=plotting.INK, markersize=16)
    panels[0].set_yticks([-k for k in range(len(table))], list(table))
    plotting.label(panels[0], "mean train loss (each dot a seed)", "")
    for k, name in enumerate(("merged", "rp only", "es only")):
        for r in (r for r in of_kind(rows, "fig8", "train") if r["variant"] == name):
            label = name if r["seed"] == 0 else None
            panels[1].plot(r["versions"], r["history"], color=plotting.PALETTE[k], linewidth=0.8, label=label)
    plotting.label(panels[1], "outer updates", "outer loss (windows grow)")
    return figure
