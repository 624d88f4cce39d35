"""The picture of appendix E."""

import numpy as np
from matplotlib.figure import Figure

from common import plotting
from workers.evaluation.search import ADAM
from workers.figures.figure import Results
from workers.figures.searches import JUDGED, losses


def draw(results: Results) -> Figure:
    """On each unseen task, the loss minus that of Adam's search: distributions."""
    titles = [f"tuned for {tuned_for} loss" for tuned_for in JUDGED]
    figure, panels = plotting.panels(1, 2, titles)
    for panel, (tuned_for, judged) in zip(panels, JUDGED.items()):
        table = losses(results, tuned_for)
        for name, values in table.items():
            if name != ADAM:
                gap = np.sort(values - table[ADAM])
                panel.plot(gap, (np.arange(len(gap)) + 0.5) / len(gap), color=plotting.COLOURS[name], label=name)
        panel.axvline(0, color=plotting.INK, linewidth=0.6)
        plotting.label(panel, f"mean {judged} loss minus that of Adam's search", "fraction of the tasks")
    return figure
