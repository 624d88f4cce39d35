"""Figure 4: the variance of rp grows from far below to far above that of es (paper section 3).

Along the outer-trainings of Figure 5, and against the window at a fixed theta: before outer-training, after it, and
after it with steps three times as long (the output layer times 3), at the edge of stability.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.config import Config
from common.optimizer import make_family
from workers.estimators import Perturbation, Truncation, antithetic_pair
from workers.evaluation.jobs import UnrollJob, decode, encode
from workers.figures.figure import Record, Train, Verdict, config_of, evaluator_of, item, of_kind, rounded, row
from workers.figures.statistics import bootstrap

CLAIM = "The variance of rp grows from far below to far above that of es, which stays as it is."
NEEDS = ("fig5",)

EDGE = "trained, steps x 3"
SCALES: dict[str, dict[str, Any]] = {
    "mini": {"windows": [5, 10, 20, 40, 80, 160, 300], "pairs": 16},
    "paper": {"windows": [10, 50, 200, 1000, 3000, 10000], "pairs": 64},
}


def items(scale: str, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    from workers.figures.fig5 import best_training

    trained = best_training(rows, "train")
    if trained is None:
        return []
    start, end = (trained["thetas"][choose(trained["thetas"], key=int)] for choose in (min, max))
    thetas = {"start": start, "trained": end, EDGE: longer_steps(end, config_of(tuple(trained["settings"])))}
    return [
        item(
            "fig4",
            "pairs",
            f"{when}-T{window}".replace(" ", ""),
            trained["settings"],
            when=when,
            window=window,
            pairs=SCALES[scale]["pairs"],
            theta=theta,
        )
        for when, theta in thetas.items()
        for window in SCALES[scale]["windows"]
    ]


def longer_steps(theta: str, config: Config) -> str:
    """The same optimizer with both outputs times 3: theta's last two tensors are the output layer."""
    layout, numbers = make_family(config.optimizer).layout, decode(theta)
    last = sum(int(np.prod(shape)) for shape in layout[-2:])
    return encode(np.concatenate([numbers[:-last], 3 * numbers[-last:]]))


def perform(record: Mapping[str, Any], train: Train) -> Record:
    """Variances per coordinate over pairs of fresh problems, and how far apart they are."""
    evaluator, theta = evaluator_of(tuple(record["settings"])), decode(record["theta"])
    sigma, random = evaluator.config.estimator.sigma, np.random.default_rng(record["window"])
    rp, es = [], []
    for k in range(record["pairs"]):
        problem, state, _ = evaluator.start(UnrollJob("learned", k, theta=record["theta"], outer_split="outer_train"))
        noise = random.standard_normal(len(theta))
        unroll = evaluator.unroll("learned")
        truncation = Truncation(problem, state, state, record["window"])
        pair = antithetic_pair(unroll, Perturbation(theta, noise, sigma), truncation, with_rp=True)
        assert pair.rp is not None and pair.es is not None
        rp.append(np.nan_to_num(pair.rp, nan=1e30, posinf=1e30, neginf=-1e30))
        es.append(pair.es)
    pairs = np.stack([np.stack(rp), np.stack(es)], axis=1)  # [pairs, 2, P]
    ratio = bootstrap(pairs, log_ratio)
    quantiles = {
        name: np.percentile(pairs[:, k].var(axis=0, ddof=1), [5, 25, 50, 75, 95]) for k, name in enumerate(("rp", "es"))
    }
    return row(record, **rounded(quantiles), log_ratio=rounded(ratio))


def log_ratio(pairs: np.ndarray) -> float:
    """Median over coordinates of log10 (variance of rp / variance of es), of pairs [n, 2, P]."""
    variances = np.maximum(pairs.var(axis=0, ddof=1), 1e-30)
    return float(np.median(np.log10(variances[0] / variances[1])))


def histories(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [r for r in of_kind(rows, "fig5", "train") if r["objective"] == "train"]


def growth(history: Mapping[str, Any]) -> tuple[float, float]:
    """log10 of the ratio of the median variances, rp over es: in the first and in the last tenth of a training."""
    rp, es = (np.array(history[f"var_{name}"], float)[:, 1] for name in ("rp", "es"))
    ratio = np.log10(np.maximum(rp, 1e-30) / np.maximum(es, 1e-30))
    tenth = max(1, len(ratio) // 10)
    return float(np.nanmedian(ratio[:tenth])), float(np.nanmedian(ratio[-tenth:]))


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    along = np.array([growth(h) for h in histories(rows)])
    parts = [
        f"along outer-training the median variance of rp goes from 10^{along[:, 0].mean():.1f} times that of es "
        f"({along[:, 0].min():.1f} to {along[:, 0].max():.1f} over {len(along)} starts) to 10^{along[:, 1].mean():.1f} times "
        f"({along[:, 1].min():.1f} to {along[:, 1].max():.1f})"
    ]
    table = {(r["when"], r["window"]): r["log_ratio"] for r in of_kind(rows, "fig4", "pairs")}
    windows = sorted({window for _, window in table})
    for when in dict.fromkeys(when for when, _ in table):
        first, last = (
            f"10^{v:.1f} ({low:.1f} to {high:.1f})"
            for v, low, high in (table[when, windows[0]], table[when, windows[-1]])
        )
        parts.append(f"theta {when}: {first} times at T = {windows[0]}, {last} at T = {windows[-1]}")
    holds = bool((along[:, 0] < 0).all() and (along[:, 1] > 0).all())
    return Verdict(holds, "Over coordinates: " + "; ".join(parts) + ".")


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    from common import plotting

    cases = list(dict.fromkeys(r["when"] for r in of_kind(rows, "fig4", "pairs")))
    titles = ["along outer-training", *(f"over the window, theta {when}" for when in cases)]
    figure, panels = plotting.panels(2, 2, titles)
    for k, history in enumerate(histories(rows)):
        for name in ("rp", "es"):
            band = np.array(history[f"var_{name}"], float)
            label = plotting.NAMES[name] if k == 0 else None
            panels[0].plot(history["versions"], band[:, 1], color=plotting.COLOURS[name], linewidth=0.8, label=label)
    panels[0].set_yscale("log")
    plotting.label(panels[0], "outer updates", "variance of one pair, median coordinate")
    for axes, when in zip(panels[1:], cases):
        found = sorted((r for r in of_kind(rows, "fig4", "pairs") if r["when"] == when), key=lambda r: r["window"])
        for name in ("rp", "es"):
            q, x = np.maximum([r[name] for r in found], 1e-30), [r["window"] for r in found]
            axes.plot(x, q[:, 2], "o-", color=plotting.COLOURS[name], markersize=3, label=plotting.NAMES[name])
            axes.fill_between(x, q[:, 0], q[:, 4], color=plotting.COLOURS[name], alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        plotting.label(axes, "window (inner steps)", "variance of one pair: median, 5 to 95 %")
    return figure
