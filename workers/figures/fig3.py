"""Figure 3: short truncations are biased, and drive Adam's learning rate the wrong way (paper section 2.4).

Adam's rate is outer-learned on a two-layer network by plain truncated backpropagation (sigma = 0): the same total of
inner steps, cut into truncations of several lengths, from a start close to the best rate. At the start the gradient of
each truncation is shown over the inner problem, and beside it the gradient of the whole problem.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log
from typing import Any

import jax.numpy as jnp
import numpy as np

from workers.evaluation.jobs import UnrollJob
from workers.figures.figure import (
    Record,
    Train,
    Verdict,
    config_of,
    evaluator_of,
    item,
    of_kind,
    rounded,
    row,
)
from workers.figures.statistics import Interval, bootstrap

CLAIM = "Short truncations are biased: they drive Adam's learning rate away from its best value, long ones towards it."
NEEDS = ()

NETWORK = ("task.family=mlp", "task.units=[32]", "optimizer.family=adam")
PLAIN = (
    "estimator.use=rp",
    "estimator.sigma=0",
    "estimator.merge=scalar",
    "curriculum.updates=0",
    "curriculum.jitter=0",
)
SCALES: dict[str, dict[str, Any]] = {
    "mini": {
        "base": ("mini", *NETWORK, *PLAIN, "task.inner_steps=1000", "optimizer.learning_rate=0.01"),
        "start": 0.01,  # as close to the best of 1,000 steps as the paper's .001 is to the best of 10,000
        "windows": [10, 50, 200, 1000],
        "total": 40_000,  # inner steps of each training
        "batch": 2,
        "outer": ("outer.learning_rate=0.05", "outer.clip=none"),
        "seeds": 3,
        "gradients": [10, 50],
        "problems": 16,
        "rates": [float(f"{r:.3g}") for r in np.geomspace(1e-4, 0.1, 13)],
    },
    "paper": {
        "base": ("paper", *NETWORK, *PLAIN, "task.inner_steps=10000", "optimizer.learning_rate=0.001"),
        "start": 0.001,
        "windows": [10, 100, 1000, 10000],
        "total": 20_000_000,
        "batch": 4,
        "outer": ("outer.learning_rate=0.003", "outer.clip=none"),
        "seeds": 5,
        "gradients": [10, 100, 1000],
        "problems": 64,
        "rates": [float(f"{r:.3g}") for r in np.geomspace(1e-5, 0.1, 17)],
    },
}


def items(scale: str, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    chosen = SCALES[scale]
    listed = []
    for k in range(chosen["problems"]):
        listed.append(item("fig3", "rates", f"rates{k}", chosen["base"], problem=k, rates=chosen["rates"]))
        listed += [
            item(
                "fig3",
                "gradient",
                f"gradient{k}-T{window}",
                chosen["base"],
                problem=k,
                window=window,
                rate=chosen["start"],
            )
            for window in [*chosen["gradients"], config_of(chosen["base"]).task.inner_steps]
        ]
    for seed in range(chosen["seeds"]):
        listed += [training(chosen, window, seed) for window in chosen["windows"]]
    return listed


def training(chosen: Mapping[str, Any], window: int, seed: int) -> Record:
    updates = max(1, round(chosen["total"] / (window * chosen["batch"])))
    settings = (
        *chosen["base"],
        *chosen["outer"],
        f"seed={seed}",
        f"curriculum.start={window}",
        f"curriculum.end={window}",
        f"outer.updates={updates}",
        f"outer.batch_samples={chosen['batch']}",
        f"workers.count={chosen['batch']}",
    )
    return item("fig3", "train", f"T{window}-seed{seed}", settings, window=window, seed=seed)


def perform(record: Mapping[str, Any], train: Train) -> Record:
    if record["kind"] == "train":
        return learn(record, train)
    return {"rates": rates, "gradient": gradient}[record["kind"]](record)


def learn(record: Mapping[str, Any], train: Train) -> Record:
    """The learned rate and the outer loss along one training, at 60 points."""
    config = config_of(tuple(record["settings"]))
    versions = sorted({round(v) for v in np.linspace(0, config.outer.updates, 61)})
    trained = train(config, versions)
    losses = [update.loss for update in trained.history]
    per_update = record["window"] * config.outer.batch_samples
    return row(
        record,
        steps=[v * per_update for v in versions],
        rates=rounded([np.exp(trained.kept[v][0]) for v in versions]),
        losses=rounded([np.mean(losses[a : max(b, a + 1)]) for a, b in pairwise(versions)]),
    )


def rates(record: Mapping[str, Any]) -> Record:
    """Mean loss of one whole problem at each rate."""
    evaluator = evaluator_of(tuple(record["settings"]))
    runs = [UnrollJob("adam", record["problem"], rate=rate, outer_split="outer_train") for rate in record["rates"]]
    return row(record, losses=rounded([evaluator.run(run).mean("train") for run in runs]))


def gradient(record: Mapping[str, Any]) -> Record:
    """The gradient in log rate of each truncation of one problem, at a fixed rate."""
    evaluator = evaluator_of(tuple(record["settings"]))
    problem, state, _ = evaluator.start(
        UnrollJob("adam", record["problem"], rate=record["rate"], outer_split="outer_train")
    )
    theta, unroll, window = jnp.asarray([log(record["rate"])], jnp.float32), evaluator.unroll("adam"), record["window"]
    gradients = []
    for _ in range(evaluator.config.task.inner_steps // window):
        _, slope, state = unroll.losses_and_grad(theta, problem, state, window)
        gradients.append(float(slope[0]))
    return row(record, gradients=rounded(gradients))


def best_rate(rows: Sequence[Mapping[str, Any]]) -> tuple[float, Interval]:
    """The rate with the least mean loss over problems, and its interval (over problems)."""
    found = of_kind(rows, "fig3", "rates")
    grid = np.array(found[0]["rates"])
    losses = np.array([r["losses"] for r in found])
    interval = bootstrap(losses, lambda x: float(grid[x.mean(axis=0).argmin()]))
    return interval.value, interval


def loss_at(rows: Sequence[Mapping[str, Any]], rate: float) -> np.ndarray:
    """[problems] mean loss of the whole problem at one rate, interpolated on the grid."""
    found = of_kind(rows, "fig3", "rates")
    grid = np.log(found[0]["rates"])
    return np.array([np.interp(np.log(rate), grid, r["losses"]) for r in found])


def final_rates(rows: Sequence[Mapping[str, Any]]) -> dict[int, np.ndarray]:
    """[seeds] learned rates (geometric mean of the last fifth of a training), by window."""
    table: dict[int, list[float]] = {}
    for r in of_kind(rows, "fig3", "train"):
        table.setdefault(r["window"], []).append(float(np.exp(np.log(r["rates"][-12:]).mean())))
    return {window: np.array(values) for window, values in sorted(table.items())}


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    finals, (best, interval) = final_rates(rows), best_rate(rows)
    short, long = min(finals), max(finals)
    excess = {
        w: float(np.mean([loss_at(rows, r).mean() for r in finals[w]]) - loss_at(rows, best).mean()) for w in finals
    }
    sums, whole = gradient_sums(rows, short), gradient_sums(rows, long)
    start = of_kind(rows, "fig3", "gradient")[0]["rate"]
    agree = bootstrap(np.sign(sums * whole) > 0)
    ranges = ", ".join(
        f"T = {w}: {np.exp(np.log(v).mean()):.2g} ({v.min():.2g} to {v.max():.2g} over seeds, "
        f"{excess[w]:.3f} nats above the best rate)"
        for w, v in finals.items()
    )
    sentence = (
        f"From {start} the learned rate goes to {ranges}; the best single rate on the whole problem is {best:.2g} "
        f"({interval.low:.2g} to {interval.high:.2g}). At {start} the gradient of T = {short}, averaged over a problem, is "
        f"{bootstrap(sums)}, that of the whole problem {bootstrap(whole)}: the same sign on {agree.value:.0%} of the problems."
    )
    distance = {w: np.abs(np.log(v / best)) for w, v in finals.items()}
    holds = distance[short].min() > distance[long].max() and finals[short].max() < start
    return Verdict(bool(holds), sentence)


def gradient_sums(rows: Sequence[Mapping[str, Any]], window: int) -> np.ndarray:
    """[problems] mean over a problem's truncations of the gradient in log rate."""
    found = [r for r in of_kind(rows, "fig3", "gradient") if r["window"] == window]
    return np.array([np.mean(r["gradients"]) for r in sorted(found, key=lambda r: r["problem"])])


def rolling(losses: Sequence[float], decay: float = 0.8) -> list[float]:
    """Exponential rolling average, as the paper draws it: a problem's truncations begin high and end low."""
    average, averages = losses[0], []
    for loss in losses:
        average = decay * average + (1 - decay) * loss
        averages.append(average)
    return averages


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    from common import plotting

    titles = [
        "a  outer loss while training",
        "b  learned rate",
        "c  gradient of each truncation",
        "d  loss of the whole problem",
    ]
    figure, panels = plotting.panels(2, 2, titles)
    windows = sorted({r["window"] for r in of_kind(rows, "fig3", "train")})
    for r in sorted(of_kind(rows, "fig3", "train"), key=lambda r: r["window"]):
        colour = plotting.shade(windows.index(r["window"]), len(windows))
        name = f"T = {r['window']}" if r["seed"] == 0 else None
        panels[0].plot(r["steps"][1:], rolling(r["losses"]), color=colour, linewidth=0.9, label=name)
        panels[1].plot(r["steps"], r["rates"], color=colour, linewidth=0.9, label=name)
    plotting.label(panels[0], "inner steps in all", "mean loss of the truncations")
    start = of_kind(rows, "fig3", "gradient")[0]["rate"]
    panels[1].axhline(start, color=plotting.INK, linestyle="--", linewidth=0.8)
    panels[1].axhline(best_rate(rows)[0], color=plotting.PALETTE[1], linestyle=":", label="best single rate")
    panels[1].set_yscale("log")
    plotting.label(panels[1], "inner steps in all", "learning rate", loc="lower right", ncols=2)
    _draw_gradients(panels[2], rows)
    found = of_kind(rows, "fig3", "rates")
    losses = np.array([r["losses"] for r in found])
    panels[3].plot(found[0]["rates"], losses.mean(axis=0), "o-", color=plotting.INK, markersize=3)
    panels[3].axvline(start, color=plotting.INK, linestyle="--", linewidth=0.8)
    panels[3].set_xscale("log")
    panels[3].set_ylim(losses.mean(axis=0).min() - 0.05, min(3.0, losses.mean(axis=0).max()))
    plotting.label(panels[3], "learning rate", "mean loss")
    return figure


def _draw_gradients(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    from common import plotting

    found = of_kind(rows, "fig3", "gradient")
    windows = sorted({r["window"] for r in found})[:-1]
    for k, window in enumerate(windows):
        lines = np.array([r["gradients"] for r in found if r["window"] == window])
        x = window * (np.arange(lines.shape[1]) + 0.5)
        middle, error = lines.mean(axis=0), lines.std(axis=0, ddof=1) / np.sqrt(len(lines))
        axes.plot(x, middle, color=plotting.PALETTE[k], linewidth=0.9, label=f"T = {window}")
        axes.fill_between(x, middle - 2 * error, middle + 2 * error, color=plotting.PALETTE[k], alpha=0.2, linewidth=0)
    axes.axhline(0, color=plotting.INK, linewidth=0.8)
    axes.set_yscale("symlog", linthresh=1e-3)
    plotting.label(axes, "inner step", "gradient in log rate")
