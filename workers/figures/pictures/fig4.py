"""The picture of Figure 4."""

import numpy as np
from matplotlib.figure import Figure

from common import plotting
from workers.figures.fig4 import Pairs, trainings
from workers.figures.figure import Results, of_kind


def draw(results: Results) -> Figure:
    """An infinite median is a triangle at the upper edge."""
    pairs = of_kind(results, Pairs)
    cases = list(dict.fromkeys(one.when for one in pairs))
    titles = ["along outer-training", *(f"over the window, theta {when}" for when in cases)]
    figure, panels = plotting.panels(2, 2, titles)
    for k, training in enumerate(trainings(results)):
        for name, band in (("rp", training.var_rp), ("es", training.var_es)):
            label = plotting.NAMES[name] if k == 0 else None
            median = np.array(band, float)[:, 1]
            panels[0].plot(training.versions, median, color=plotting.COLOURS[name], linewidth=0.8, label=label)
    panels[0].set_yscale("log")
    plotting.label(panels[0], "outer updates", "variance of one pair, median coordinate")
    for axes, when in zip(panels[1:], cases):
        found = sorted((one for one in pairs if one.when == when), key=lambda one: one.window)
        x = [one.window for one in found]
        for name, bands in (("rp", [one.rp for one in found]), ("es", [one.es for one in found])):
            q, colour = np.maximum(np.array(bands, float), 1e-30), plotting.COLOURS[name]
            axes.plot(x, q[:, 2], "o-", color=colour, markersize=3, label=plotting.NAMES[name])
            axes.fill_between(x, q[:, 0], q[:, 4], color=colour, alpha=0.15, linewidth=0)
            for window, median in zip(x, q[:, 2]):
                if np.isinf(median):
                    axes.plot(window, 0.97, "^", color=colour, markersize=5, transform=axes.get_xaxis_transform())
        axes.set_xscale("log")
        axes.set_yscale("log")
        plotting.label(axes, "window (inner steps)", "variance of one pair: median, 5 to 95 %")
    return figure
