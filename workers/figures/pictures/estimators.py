"""The picture of the estimators."""

import numpy as np
from matplotlib.figure import Figure

from common import plotting
from workers.figures.estimators import OTHERS, OWN, PLACES, cells
from workers.figures.figure import Results

SHOWN = (*OTHERS, OWN, "PES + rp, reach 1", "PES + rp, reach 4")


def draw(results: Results) -> Figure:
    """Mean squared error against CPU seconds, with the second shortest window of each problem."""
    found = cells(results)
    problems = list(dict.fromkeys(problem for problem, _, _ in found))
    chosen = {problem: sorted({key[2] for key in found if key[0] == problem})[:2][-1] for problem in problems}
    titles = [f"{problem}, {place}, window {chosen[problem]}" for problem in problems for place in PLACES]
    figure, panels = plotting.panels(len(problems), len(PLACES), titles)
    regimes = [(problem, place, chosen[problem]) for problem in problems for place in PLACES]
    for axes, regime in zip(panels, regimes):
        for name in SHOWN:
            one = found.get(regime, {}).get(name)
            if one is None or not np.isfinite(one.error.value):
                continue
            batch = one.per_second / one.variance if one.variance > 0 else 1.0
            seconds = batch * np.logspace(-1.5, 2, 30)
            bias = one.bias.value if one.bias.low > 0 else 0.0  # where it is significant
            errors = bias + one.per_second / seconds
            style = "--" if name in OTHERS else "-"
            colour = plotting.PALETTE[SHOWN.index(name)]
            axes.loglog(seconds, errors, style, color=colour, linewidth=1.2, label=name)
        plotting.label(axes, "CPU seconds of a batch", "mean squared error", legend=axes is panels[0])
    return figure
