"""Skipping rp while it has no weight (`estimator.probe_rate`), beyond the paper: the same training for less.

The preset `exploding` outer-trained with rp in every sample and with rp in a tenth of them, from the same seeds; theta
is judged along both trainings on the same tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.update_record import UpdateRecord
from workers.evaluation.jobs import UnrollJob, encode
from workers.figures.figure import Record, Train, Verdict, config_of, evaluator_of, item, of_kind, rounded, row
from workers.figures.statistics import Interval, paired

CLAIM = (
    "Where gradients explode, rp has no weight: most samples can do without it, for more outer updates per second and "
    "the same outer-training curve."
)
NEEDS = ()

WITH, WITHOUT = 1.0, 0.1  # probe rates
ENDS = (slice(0, 8), slice(-8, None))  # updates of the training's beginning and end
CLOSE = 0.05  # of the loss: the widest interval that still says "the same"
SCALES: dict[str, dict[str, Any]] = {
    "mini": {"base": ("exploding",), "seeds": 6, "points": 6, "tasks": 12},
    "paper": {"base": ("paper",), "seeds": 5, "points": 20, "tasks": 40},
}


def items(scale: str, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    chosen, listed = SCALES[scale], []
    versions = [round(v) for v in np.linspace(0, config_of(chosen["base"]).outer.updates, chosen["points"])]
    for seed in range(chosen["seeds"]):
        for rate in (WITH, WITHOUT):
            settings = (*chosen["base"], f"estimator.probe_rate={rate}", f"seed={seed}")
            fields = {"rate": rate, "seed": seed, "kept": versions, "judge": list(chosen["base"])}
            tasks = list(range(4000, 4000 + chosen["tasks"]))
            listed.append(item("probing", "train", f"rate{rate}-seed{seed}", settings, tasks=tasks, **fields))
    return listed


def perform(record: Mapping[str, Any], train: Train) -> Record:
    """Trains, and judges: mean losses [versions, tasks] on outer-train tasks."""
    trained = train(config_of(tuple(record["settings"])), record["kept"])
    evaluator, losses = evaluator_of(tuple(record["judge"])), []
    for version in record["kept"]:
        theta = encode(trained.kept[version])
        runs = [UnrollJob("learned", task, theta=theta, outer_split="outer_train") for task in record["tasks"]]
        losses.append([evaluator.run(run).mean("train") for run in runs])
    return row(
        record,
        losses=rounded(losses),
        history=rounded([update.loss for update in trained.history]),
        ratios=[log_ratio(update) for update in trained.history],
        skipped=skipped(trained.history),
        seconds=seconds(trained.history),
    )


def log_ratio(update: UpdateRecord) -> float | None:
    """log10 of the variance of rp over that of es, median coordinate; None where one is unknown."""
    rp, es = update.var_rp.q50, update.var_es.q50
    return float(np.log10(rp / es)) if rp and es else None


def skipped(history: Sequence[UpdateRecord]) -> float:
    """Share of all pairs that came without rp."""
    return float(1 - sum(update.rp_pairs for update in history) / sum(update.es_pairs for update in history))


def seconds(history: Sequence[UpdateRecord]) -> float:
    """Median from one outer update to the next, once the policy has seen enough: over the second half."""
    times = [update.time for update in history[len(history) // 2 :]]
    return float(np.median(np.diff(times)))


def curves(rows: Sequence[Mapping[str, Any]], rate: float) -> np.ndarray:
    """[seeds, versions] mean loss over the tasks."""
    found = sorted((r for r in of_kind(rows, "probing", "train") if r["rate"] == rate), key=lambda r: r["seed"])
    return np.array([np.mean(r["losses"], axis=1) for r in found])


def gap(rows: Sequence[Mapping[str, Any]]) -> tuple[Interval, float]:
    """Mean loss along the training with skipping minus without, over seeds, and the loss itself."""
    one, other = (curves(rows, rate)[:, 1:].mean(axis=1) for rate in (WITHOUT, WITH))
    return paired(one, other), float(other.mean())


def speed(rows: Sequence[Mapping[str, Any]]) -> float:
    """Outer updates per second with skipping, over those without: median of the seeds."""
    found = {(r["rate"], r["seed"]): r["seconds"] for r in of_kind(rows, "probing", "train")}
    return float(np.median([found[WITH, seed] / found[WITHOUT, seed] for rate, seed in found if rate == WITH]))


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    trained = of_kind(rows, "probing", "train")
    difference, loss = gap(rows)
    same = difference.low <= 0 <= difference.high and difference.high - difference.low < CLOSE * loss
    faster = speed(rows)
    always = [r["ratios"] for r in trained if r["rate"] == WITH]
    first, last = (np.median([v for ratios in always for v in ratios[part] if v is not None]) for part in ENDS)
    share = np.mean([r["skipped"] for r in trained if r["rate"] == WITHOUT])
    return Verdict(
        bool(same and faster > 1),
        f"The variance of rp is 10^{first:.1f} times that of es in the first updates, 10^{last:.1f} times in the "
        f"last. With rp in a tenth of the samples while "
        f"it has no weight ({share:.0%} of all pairs did without it) there are {faster:.2f} times as many outer updates "
        f"per second; the mean loss along the training is {difference} higher, of {loss:.3g} (the interval's width is "
        f"{(difference.high - difference.low) / loss:.1%} of it; {len(trained) // 2} seeds, each with the same start).",
    )


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    from common import plotting

    titles = ["loss along outer-training", "variance of rp over that of es", "the same loss over seconds"]
    figure, panels = plotting.panels(1, 3, titles)
    versions = of_kind(rows, "probing", "train")[0]["kept"]
    for rate, colour, label in ((WITH, "#D55E00", "rp in every sample"), (WITHOUT, "#0072B2", "rp in a tenth")):
        found = [r for r in of_kind(rows, "probing", "train") if r["rate"] == rate]
        lines = curves(rows, rate)
        per_update = np.median([r["seconds"] for r in found])
        for k, line in enumerate(lines):
            panels[0].plot(versions, line, color=colour, linewidth=0.8, label=label if k == 0 else None)
            panels[2].plot(np.array(versions) * per_update, line, color=colour, linewidth=0.8)
        for r in found:
            ratios = [np.nan if v is None else 10.0**v for v in r["ratios"]]
            panels[1].plot(np.arange(1, len(ratios) + 1), ratios, ".", color=colour, markersize=2)
    panels[1].set_yscale("log")
    plotting.label(panels[0], "outer updates", "mean train loss on fixed tasks")
    plotting.label(panels[1], "outer updates", "median coordinate")
    plotting.label(panels[2], "seconds of one core", "mean train loss on fixed tasks")
    return figure
