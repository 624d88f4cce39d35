"""The one plotting style: figures of the paper, and the pictures of the report. Importing it loads matplotlib."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
VIOLET, BROWN, GREY = "#6639ba", "#8A6D00", "#57606a"  # the line above is Okabe and Ito's: safe for colour blindness
PALETTE: Final = (BLUE, VERMILION, GREEN, PURPLE, BROWN, SKY, VIOLET, GREY, "#000000", ORANGE)


class Colours(dict[str, str]):
    """Colours by name; other names get one of the palette, always the same."""

    def __missing__(self, name: str) -> str:
        return PALETTE[sum(name.encode()) % len(PALETTE)]


class Names(dict[str, str]):
    """Display names; others are shown as they are."""

    def __missing__(self, name: str) -> str:
        return name


COLOURS: Final = Colours(
    {
        "learned": BLUE,
        "learned (train)": BLUE,
        "learned (valid)": SKY,
        "included (train)": "#000000",
        "included (valid)": GREY,
        "small-conv-train": VIOLET,
        "small-conv-valid": ORANGE,
        "paper-conv-train": "#000000",
        "paper-conv-valid": GREY,
        "adam": VERMILION,
        "rmsprop": GREEN,
        "sgd": PURPLE,
        "adam8": BROWN,
        "rmsprop7": ORANGE,
        "momentum6": VIOLET,
        "rp": VERMILION,
        "es": BLUE,
        "adamw": "#000000",
        "nadamw": GREY,
        "muon": ORANGE,
        "schedule_free_adamw": SKY,
        "lion": VIOLET,
    }
)
NAMES: Final = Names(
    {
        "learned": "learned",
        "adam": "Adam",
        "rmsprop": "RMSProp",
        "sgd": "SGD + momentum",
        "adam8": "Adam + reg + decay",
        "rmsprop7": "RMSProp + reg + decay",
        "momentum6": "momentum + reg + decay",
        "rp": "reparameterization",
        "es": "evolution strategies",
        "adamw": "AdamW",
        "nadamw": "NAdamW",
        "muon": "Muon",
        "schedule_free_adamw": "Schedule-Free AdamW",
        "lion": "Lion",
    }
)
INK, LINE, FAINT = "#24292f", "#8c959f", "#d8dee4"  # of text, of axes, of the grid


def panels(rows: int, columns: int, titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of axes, one title each; those beyond the titles are hidden."""
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), dpi=100, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, title in zip(grid, titles):
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        style(axes)
    for axes in grid[len(titles) :]:
        axes.set_visible(False)
    return figure, grid


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG of 128 colours, a third as large as one of all colours."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, format="png", optimize=True)


def single(x: str, y: str) -> tuple[Figure, Axes]:
    """A figure with one labelled axes, fine enough for a page."""
    figure = Figure(figsize=(4.6, 3.2), dpi=200, layout="constrained")
    axes = figure.subplots()
    style(axes)
    label(axes, x, y)
    return figure, axes


def style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def label(axes: Axes, x: str, y: str, *, legend: bool = True, **legend_options: Any) -> None:
    """Labels both axes, and adds a legend if something drawn has a label."""
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, **legend_options)


def legend_above(axes: Axes) -> None:
    """A legend above the axes, where it covers no data."""
    labels = axes.get_legend_handles_labels()[1]
    axes.legend(
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2 if max(map(len, labels), default=0) < 22 else 1,
        borderaxespad=0.2,
        handlelength=1.5,
        columnspacing=1.2,
    )


def log_if_wide(axes: Axes) -> None:
    """A logarithmic y axis where the data span more than a factor of five."""
    low, high = axes.dataLim.ymin, axes.dataLim.ymax
    if 0 < 5 * low < high:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def shade(index: int, count: int) -> Any:
    """Colour `index` of an ordered set of `count`."""
    return colormaps["viridis"](0.9 * index / max(count - 1, 1))
