"""The picture of Figure 3."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import plotting
from workers.figures.fig3 import Gradient, Rates, Training, best_rate
from workers.figures.figure import Results, of_kind


def rolling(losses: Sequence[float], decay: float = 0.8) -> list[float]:
    """Exponential rolling average, as the paper draws it: a problem's truncations begin high and end low."""
    average, averages = losses[0], []
    for loss in losses:
        average = decay * average + (1 - decay) * loss
        averages.append(average)
    return averages


def draw(results: Results) -> Figure:
    titles = [
        "a  outer loss while training",
        "b  learned rate",
        "c  gradient of each truncation",
        "d  loss of the whole problem",
    ]
    figure, panels = plotting.panels(2, 2, titles)
    trainings, start = of_kind(results, Training), of_kind(results, Gradient)[0].rate
    windows = sorted({one.window for one in trainings})
    for one in sorted(trainings, key=lambda one: one.window):
        colour = plotting.shade(windows.index(one.window), len(windows))
        name = f"T = {one.window}" if one.seed == 0 else None
        panels[0].plot(one.steps[1:], rolling(one.losses), color=colour, linewidth=0.9, label=name)
        panels[1].plot(one.steps, one.rates, color=colour, linewidth=0.9, label=name)
    plotting.label(panels[0], "inner steps in all", "mean loss of the truncations")
    panels[1].axhline(start, color=plotting.INK, linestyle="--", linewidth=0.8)
    panels[1].axhline(best_rate(results)[0], color=plotting.PALETTE[1], linestyle=":", label="best single rate")
    panels[1].set_yscale("log")
    plotting.label(panels[1], "inner steps in all", "learning rate", loc="lower right", ncols=2)
    _draw_gradients(panels[2], of_kind(results, Gradient))
    _draw_losses(panels[3], of_kind(results, Rates), start)
    return figure


def _draw_gradients(axes: Axes, found: Sequence[Gradient]) -> None:
    windows = sorted({one.window for one in found})[:-1]
    for k, window in enumerate(windows):
        lines = np.array([one.gradients for one in found if one.window == window])
        x = window * (np.arange(lines.shape[1]) + 0.5)
        middle, error = lines.mean(axis=0), lines.std(axis=0, ddof=1) / np.sqrt(len(lines))
        axes.plot(x, middle, color=plotting.PALETTE[k], linewidth=0.9, label=f"T = {window}")
        axes.fill_between(x, middle - 2 * error, middle + 2 * error, color=plotting.PALETTE[k], alpha=0.2, linewidth=0)
    axes.axhline(0, color=plotting.INK, linewidth=0.8)
    axes.set_yscale("symlog", linthresh=1e-3)
    plotting.label(axes, "inner step", "gradient in log rate")


def _draw_losses(axes: Axes, found: Sequence[Rates], start: float) -> None:
    losses = np.array([one.losses for one in found]).mean(axis=0)
    axes.plot(found[0].rates, losses, "o-", color=plotting.INK, markersize=3)
    axes.axvline(start, color=plotting.INK, linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_ylim(losses.min() - 0.05, min(3.0, losses.max()))
    plotting.label(axes, "learning rate", "mean loss")
