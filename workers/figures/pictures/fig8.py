"""The picture of Figure 8."""

import numpy as np
from matplotlib.figure import Figure

from common import plotting
from workers.figures.fig8 import Training, scores
from workers.figures.figure import Results, of_kind


def draw(results: Results) -> Figure:
    table = scores(results)
    titles = ["mean loss at the end of outer-training", "outer loss while training, merged and its parts"]
    figure, panels = plotting.panels(1, 2, titles)
    for k, values in enumerate(table.values()):
        colour = plotting.PALETTE[k % len(plotting.PALETTE)]
        panels[0].plot(values, np.full(len(values), -k), "o", color=colour, alpha=0.7)
        panels[0].plot(values.mean(), -k, "|", color=plotting.INK, markersize=16)
    panels[0].set_yticks([-k for k in range(len(table))], list(table))
    plotting.label(panels[0], "mean train loss (each dot a seed)", "")
    for k, name in enumerate(("merged", "rp only", "es only")):
        for one in of_kind(results, Training):
            if one.variant == name:
                label = name if one.seed == 0 else None
                panels[1].plot(one.versions, one.history, color=plotting.PALETTE[k], linewidth=0.8, label=label)
    plotting.label(panels[1], "outer updates", "outer loss (windows grow)")
    return figure
