"""The picture of Figure 6."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import plotting
from workers.figures.figure import Results
from workers.figures.race import TUNED_FOR, curves, learners, means, rivals, seconds


def draw(results: Results) -> Figure:
    titles = [
        "a  train loss over steps",
        "b  train loss over seconds",
        "c  test loss over steps",
        "d  test loss over seconds",
        "e  task by task, train loss",
        "f  task by task, test loss",
    ]
    figure, panels = plotting.panels(3, 2, titles)
    for k, tuned_for in enumerate(TUNED_FOR):
        for axes, scale in zip(panels[2 * k : 2 * k + 2], ("steps", "seconds")):
            _draw_curves(axes, results, tuned_for, scale)
        _draw_gaps(panels[4 + k], results, tuned_for)
    return figure


def _draw_curves(axes: Axes, results: Results, tuned_for: str, scale: str) -> None:
    shown = TUNED_FOR[tuned_for]
    colours = {rival: plotting.COLOURS[name] for rival, name in rivals(results, tuned_for).items()}
    objectives = TUNED_FOR if shown == "test" else ("train",)
    learned = [name for objective in objectives for name in learners(results, objective)]
    colours |= {name: plotting.COLOURS[name] for name in learned}
    for name, colour in colours.items():
        found = curves(results, name)
        line = np.mean([one.losses(shown) for one in found], axis=0)  # [points], over tasks
        x = np.array(found[0].steps) * (seconds(results)[found[0].optimizer] if scale == "seconds" else 1)
        axes.plot(x, line, color=colour, label=name, linewidth=1.2)
    plotting.label(axes, {"steps": "inner step", "seconds": "seconds"}[scale], f"{shown} loss")


def _draw_gaps(axes: Axes, results: Results, tuned_for: str) -> None:
    shown, learned = TUNED_FOR[tuned_for], learners(results, tuned_for)[0]
    for rival, name in rivals(results, tuned_for).items():
        if name in ("adam", "adam8"):
            gap = means(results, rival, shown) - means(results, learned, shown)
            label = f"{rival}: {int((gap > 0).sum())} of {len(gap)} won"
            axes.hist(gap, bins=12, color=plotting.COLOURS[name], alpha=0.5, label=label)
    axes.axvline(0, color=plotting.INK, linewidth=0.8)
    plotting.label(axes, f"baseline - {learned}, mean {shown} loss", "tasks")
