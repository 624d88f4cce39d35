"""The picture of Figure 7."""

import numpy as np
from matplotlib.figure import Figure

from common import plotting
from workers.figures.fig7 import DIGITS, curves, elsewhere
from workers.figures.figure import Results


def draw(results: Results) -> Figure:
    shown = [(DIGITS, "train"), (DIGITS, "test"), *((where, "train") for where in elsewhere(results))]
    titles = [f"{where}, {loss} loss" for where, loss in shown]
    figure, panels = plotting.panels((len(titles) + 2) // 3, 3, titles)
    for axes, (where, loss) in zip(panels, shown):
        found = curves(results, where)
        for name in dict.fromkeys(one.optimizer for one in found):
            mean = np.mean([one.losses(loss) for one in found if one.optimizer == name], axis=0)
            label, colour = plotting.NAMES.get(name, name), plotting.COLOURS[name]
            axes.plot(found[0].steps, mean, color=colour, label=label, linewidth=1.2)
        plotting.label(axes, "inner step", "loss", legend=axes in (panels[0], panels[2]))
    return figure
