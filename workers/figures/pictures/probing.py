"""The picture of skipping rp."""

import numpy as np
from matplotlib.figure import Figure

from common import plotting
from workers.figures.figure import Results
from workers.figures.probing import WITH, WITHOUT, at_rate, curves


def draw(results: Results) -> Figure:
    titles = ["loss along outer-training", "variance of rp over that of es", "the same loss over seconds"]
    figure, panels = plotting.panels(1, 3, titles)
    cases = ((WITH, plotting.VERMILION, "rp in every sample"), (WITHOUT, plotting.BLUE, "rp in a tenth"))
    for rate, colour, label in cases:
        found = at_rate(results, rate)
        per_update = np.median([one.seconds for one in found])
        for k, line in enumerate(curves(results, rate)):
            versions = np.array(found[k].kept)
            panels[0].plot(versions, line, color=colour, linewidth=0.8, label=label if k == 0 else None)
            panels[2].plot(versions * per_update, line, color=colour, linewidth=0.8)
        for one in found:
            ratios = [np.nan if v is None else 10.0 ** float(v) for v in one.ratios]
            panels[1].plot(np.arange(1, len(ratios) + 1), ratios, ".", color=colour, markersize=2)
    panels[1].set_yscale("log")
    plotting.label(panels[0], "outer updates", "mean train loss on fixed tasks")
    plotting.label(panels[1], "outer updates", "median coordinate")
    plotting.label(panels[2], "seconds of one core", "mean train loss on fixed tasks")
    return figure
