"""The report's pictures of the evaluation on unseen tasks."""

from collections.abc import Callable
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cluster.report.material import Material, Plot
from cluster.runs.best import CHOOSING
from common.plotting import COLOURS, INK, NAMES, PALETTE, legend_above, log_if_wide, single
from workers.evaluation.comparison import LEARNED, of_theta
from workers.evaluation.curves import best_unrolls, final_unrolls, mean_curves, trailing_curve
from workers.evaluation.statistics import TAU, profile


def evaluations(material: Material) -> Figure | None:
    """Mean loss on the tasks that choose the best version, over training; None if it was evaluated only once."""
    families: dict[str, dict[int, list[float]]] = {}
    for u in material.unrolls:
        if u.optimizer == LEARNED and u.outer_split == CHOOSING and u.version is not None:
            families.setdefault(u.member, {}).setdefault(u.version, []).append(u.mean(material.objective))
    if max(map(len, families.values()), default=0) < 2:
        return None
    mixture = set(families) != {""}
    unit = "relative to the first version" if mixture else "(nats)"
    figure, axes = single("outer updates", f"mean {material.objective} loss {unit}")
    for k, (name, groups) in enumerate(sorted(families.items())):
        x = sorted(groups)
        means = np.array([np.mean(groups[v]) for v in x])
        colour, label = (PALETTE[k % len(PALETTE)], name) if mixture else (COLOURS[LEARNED], LEARNED)
        axes.plot(x, means / means[0] if mixture else means, "o-", color=colour, markersize=4, label=label)
    legend_above(axes)
    return figure


def learning_curves(split: str, axis: str) -> Callable[[Material], Figure | None]:
    """Loss over inner "steps" or over "seconds", band: 25 to 75 % over initialisations (Figures 6a and 6b)."""

    def draw(material: Material) -> Figure | None:
        comparison = material.comparison
        if comparison is None:
            return None
        figure, axes = single({"steps": "inner steps", "seconds": "seconds"}[axis], f"{split} loss (nats)")
        for name in (LEARNED, *(b.optimizer for b in comparison.baselines)):
            x, losses = mean_curves(best_unrolls(material.unrolls, name, comparison), split, axis)
            axes.plot(x, np.median(losses, axis=0), color=COLOURS[name], label=NAMES[name])
            low, high = np.percentile(losses, [25, 75], axis=0)
            axes.fill_between(x, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        axes.set_xlim(left=0)
        log_if_wide(axes)
        legend_above(axes)
        return figure

    return draw


def differences(material: Material) -> Figure | None:
    """Distribution over tasks of the difference of the means (Figure 6c). Positive: better than the baseline."""
    if material.comparison is None:
        return None
    figure, axes = single("baseline loss - learned loss (nats)", "tasks")
    gaps = {b.optimizer: b.per_task - material.comparison.learned for b in material.comparison.baselines}
    edges = _edges(np.concatenate(list(gaps.values()))).tolist()
    for name, gap in gaps.items():
        axes.hist(gap, edges, histtype="stepfilled", color=COLOURS[name], alpha=0.25)
        axes.hist(gap, edges, histtype="step", color=COLOURS[name], linewidth=1.5, label=_wins(name, gap))
    axes.axvline(0, color=INK, linewidth=1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes)
    return figure


def profiles(material: Material) -> Figure | None:
    """Fraction of the tasks that each optimizer solves within tau times the best time (seconds)."""
    scores = None if material.comparison is None else material.comparison.scores
    if scores is None:
        return None
    figure, axes = single("tau: seconds / those of the fastest", "fraction of tasks solved")
    tau = np.linspace(1.0, TAU, 301)
    for side in scores.sides:
        label = f"{NAMES[side.optimizer]} ({side.score:.2f})"
        share = profile(scores.ratios[side.optimizer], tau)
        axes.step(tau, share, where="post", color=COLOURS[side.optimizer], label=label)
    axes.set_xlim(1.0, TAU)
    axes.set_ylim(-0.03, 1.03)
    legend_above(axes)
    return figure


def speedups(material: Material) -> Figure | None:
    """Speedup of each task in seconds, sorted."""
    scores = None if material.comparison is None else material.comparison.scores
    if scores is None:
        return None
    figure, axes = single("tasks, sorted", "speedup in seconds")
    for name, (whole, *_) in scores.by_baseline.items():
        axes.plot(
            np.arange(1, len(whole.seconds) + 1),
            np.sort(whole.seconds),
            "o-",
            color=COLOURS[name],
            markersize=3,
            linewidth=1,
            label=NAMES[name],
        )
    axes.axhline(1, color=INK, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes)
    return figure


def final_curves(axis: str) -> Callable[[Material], Figure | None]:
    """Trailing mean loss to the end over inner "steps" or "seconds", each optimizer at its best final loss."""

    def draw(material: Material) -> Figure | None:
        comparison = material.comparison
        if comparison is None or comparison.scores is None:
            return None
        label = {"steps": "inner steps", "seconds": "seconds"}[axis]
        figure, axes = single(label, f"{comparison.objective} loss, trailing mean (nats)")
        shown = of_theta(material.unrolls, comparison.theta_sha256)
        for side in comparison.scores.sides:
            x, losses = trailing_curve(final_unrolls(shown, side.optimizer, comparison.scores), axis)
            axes.plot(x, losses, color=COLOURS[side.optimizer], label=NAMES[side.optimizer])
        axes.set_xlim(left=0)
        log_if_wide(axes)
        legend_above(axes)
        return figure

    return draw


def _wins(name: str, gap: np.ndarray) -> str:
    return f"{NAMES[name]} ({int((gap > 0).sum())} of {len(gap)} won)"


def _edges(values: np.ndarray) -> np.ndarray:
    """Bin edges over all values and zero, such that zero is an edge."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    width = max((high - low) / 16, 1e-6)
    return np.asarray(width * np.arange(np.floor(low / width), np.ceil(high / width) + 1))


_BAND = (
    "Mean over the tasks run from every initialisation, baselines at the best rate of each task; line: median, band: "
    "25 to 75 % over initialisations."
)

_FINAL = (
    "Mean over 5 % of the steps and over all tasks, each optimizer at its setting of the least final loss of the task."
)

EVALUATION_PLOTS: Final = (
    Plot(
        "profiles",
        "Performance profile",
        "Tasks whose target, the final loss of their best baseline, is reached within tau times the seconds of the fastest "
        "optimizer; in brackets: AlgoPerf's score, the area up to tau = 4.",
        profiles,
    ),
    Plot(
        "speedups",
        "Speedup by task",
        "Seconds of a baseline to its own final loss over those of the learned optimizer; 0: never reached.",
        speedups,
    ),
    Plot("final_steps", "To the end, over steps", _FINAL, final_curves("steps")),
    Plot("final_seconds", "To the end, over time", _FINAL, final_curves("seconds")),
    Plot("train_steps", "Training loss over steps", _BAND, learning_curves("train", "steps")),
    Plot("train_seconds", "Training loss over time", _BAND, learning_curves("train", "seconds")),
    Plot("valid_steps", "Validation loss over steps", _BAND, learning_curves("valid", "steps")),
    Plot("valid_seconds", "Validation loss over time", _BAND, learning_curves("valid", "seconds")),
    Plot("test_steps", "Test loss over steps", _BAND, learning_curves("test", "steps")),
    Plot(
        "differences",
        "Differences by task",
        "Right of zero: the learned optimizer has the lower mean loss, compared with the best rate of the task.",
        differences,
    ),
    Plot(
        "evaluations",
        "Evaluation during outer-training",
        "Mean loss over the steps on tasks of outer-train classes, by which the best version is chosen.",
        evaluations,
    ),
)
