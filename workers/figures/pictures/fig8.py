"""The picture of Figure 8."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import plotting
from workers.figures.ablations import ESTIMATORS, HELD, MERGED, QUARTER, RECENT, by_variant
from workers.figures.fig8 import bar, judged, scores, with_a_quarter, with_all_steps
from workers.figures.figure import Results


def draw(results: Results) -> Figure:
    titles = [
        "mean loss at the end of outer-training",
        "loss along outer-training, over inner steps",
        "loss along outer-training, over core seconds",
        "weight of rp in the merged trainings",
    ]
    figure, panels = plotting.panels(2, 2, titles)
    ends(panels[0], results)
    along(panels[1], results, "inner_steps")
    along(panels[2], results, "core_seconds")
    for one in by_variant(results)[MERGED]:
        weights = np.array(one.weight_rp, float)
        panels[3].plot(one.inner_steps, weights, color=plotting.PALETTE[0], linewidth=0.8, alpha=0.7)
    plotting.label(panels[1], "inner steps", "mean train loss on fixed tasks")
    plotting.label(panels[2], "core seconds of the samples", "mean train loss on fixed tasks")
    plotting.label(panels[3], "inner steps", "mean over the coordinates (lines: seeds)")
    return figure


def ends(axes: Axes, results: Results) -> None:
    """Each variant's seeds, as points; 1/4: with a quarter of the budget."""
    table = scores(by_variant(results))
    for k, values in enumerate(table.values()):
        colour = plotting.PALETTE[k % len(plotting.PALETTE)]
        axes.plot(values, np.full(len(values), -k), "o", color=colour, alpha=0.7)
        axes.plot(values.mean(), -k, "|", color=plotting.INK, markersize=16)
    axes.axvline(bar(results), color=plotting.INK, linewidth=0.6, linestyle=":")
    axes.set_yticks([-k for k in range(len(table))], [name.replace(QUARTER, ", 1/4") for name in table])
    plotting.label(axes, "mean train loss (points: seeds; dotted: has not begun)", "")


def along(axes: Axes, results: Results, against: str) -> None:
    """The judged losses of the estimators: a line for each seed, dashed with a quarter of the budget."""
    for table, style in ((with_all_steps(results), "o-"), (with_a_quarter(results), "o--")):
        for k, name in enumerate((*ESTIMATORS, HELD, RECENT)):
            for one in table.get(name, []):
                x = one.steps if against == "inner_steps" else one.judged_seconds
                label = name if one.seed == 0 and (style == "o-" or name == RECENT) else None
                axes.plot(x, judged(one), style, color=plotting.PALETTE[k], linewidth=0.8, markersize=2, label=label)
