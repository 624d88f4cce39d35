"""The picture of allocation."""

import numpy as np
from matplotlib.figure import Figure

from common import plotting
from workers.figures.allocation import by_variant, regimes
from workers.figures.figure import Results


def draw(results: Results) -> Figure:
    names = [name for name in regimes() if by_variant(results, name)]
    figure, panels = plotting.panels(1, len(names), [f"{name}: loss over CPU time, means of seeds" for name in names])
    for panel, name in zip(panels, names):
        for k, (variant, trainings) in enumerate(by_variant(results, name).items()):
            seconds, losses = (
                np.mean([getattr(one, what) for one in trainings], axis=0) for what in ("seconds", "losses")
            )
            panel.plot(seconds, losses, "o-", markersize=3, color=plotting.PALETTE[k], label=variant)
        panel.set_xscale("symlog", linthresh=1)
        plotting.label(panel, "CPU seconds of the samples", "mean train loss on fixed tasks")
    return figure
