"""The picture of mixtures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gmean

from common import plotting
from workers.figures.figure import Results
from workers.figures.mixtures import Training, by_variant


def draw(results: Results) -> Figure:
    table = by_variant(results)
    families = next(iter(table.values()))[0].by_family
    titles = ["all unseen families: loss over CPU time", *(f"{name}: loss over CPU time" for name in families)]
    figure, panels = plotting.panels(-(-len(titles) // 3), 3, titles)
    for k, (variant, trainings) in enumerate(table.items()):
        _curve(panels[0], trainings, [one.losses for one in trainings], k, variant)
        for panel, name in zip(panels[1:], families):
            _curve(panel, trainings, [one.by_family[name] for one in trainings], k, variant)
    for panel in panels[: len(titles)]:
        panel.set_yscale("log")
        plotting.label(panel, "CPU seconds of the samples", "mean train loss, geometric mean")
    return figure


def _curve(panel: Axes, trainings: list[Training], losses: list[Sequence[float]], k: int, variant: str) -> None:
    seconds = np.mean([one.seconds for one in trainings], axis=0)
    panel.plot(seconds, gmean(losses), "o-", markersize=3, color=plotting.PALETTE[k], label=variant)
