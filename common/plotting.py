"""How the figures look: one style, colours that colour-blind readers can tell apart."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#56B4E9", "#6639ba", "#57606a", "#000000", "#E69F00")
COLOURS = {
    "learned (train)": "#0072B2",
    "learned (valid)": "#56B4E9",
    "small-conv-train": "#6639ba",
    "small-conv-valid": "#E69F00",
    "adam": "#D55E00",
    "rmsprop": "#009E73",
    "sgd": "#CC79A7",
    "adam8": "#8A6D00",
    "rp": "#D55E00",
    "es": "#0072B2",
}
NAMES = {
    "adam": "Adam",
    "rmsprop": "RMSProp",
    "sgd": "SGD + momentum",
    "adam8": "Adam + reg + decay",
    "rp": "reparameterization",
    "es": "evolution strategies",
}
INK, FAINT = "#24292f", "#d8dee4"


def picture(rows: int, columns: int, titles: list[str]) -> tuple[Picture, list[Axes]]:
    """A grid of panels, one title each."""
    figure = Picture(figsize=(4.6 * columns, 3.4 * rows), dpi=130, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, title in zip(panels, titles):
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        style(axes)
    for axes in panels[len(titles) :]:
        axes.set_visible(False)
    return figure, panels


def style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def label(axes: Axes, x: str, y: str, legend: bool = True, **legend_options: Any) -> None:
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, **legend_options)


def shade(index: int, count: int) -> Any:
    """Colour `index` of an ordered set of `count`."""
    from matplotlib import colormaps

    return colormaps["viridis"](0.9 * index / max(count - 1, 1))
