"""What the pictures of the report share: colours, one canvas, and columns of the history as arrays."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from common.update_record import UpdateRecord

COLOURS: Final = {  # Okabe and Ito's, told apart by colour-blind readers too
    "learned": "#0072B2",
    "adam": "#D55E00",
    "rmsprop": "#009E73",
    "sgd": "#CC79A7",
    "adam8": "#8A6D00",
    "rp": "#D55E00",
    "es": "#0072B2",
}
NAMES: Final = {
    "learned": "learned",
    "adam": "Adam",
    "rmsprop": "RMSProp",
    "sgd": "SGD + momentum",
    "adam8": "Adam + reg + decay",
}
INK, FAINT = "#24292f", "#d8dee4"


def canvas(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 3.2), dpi=200, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#8c959f")
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def column(history: Sequence[UpdateRecord], value: Callable[[UpdateRecord], float | None]) -> np.ndarray:
    """One number of each update [updates]; NaN where it is None."""
    return np.asarray(list(map(value, history)), dtype=float)


def logarithmic(values: np.ndarray) -> np.ndarray:
    """Values as a logarithmic axis can take them: not positive is NaN, and beyond 1e+-250 is drawn there."""
    return np.clip(np.where(values > 0, values, np.nan), 1e-250, 1e250)


def smooth(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Running median over `share` of the values, at least 5: it has no lag and no overshoot."""
    half = max(2, int(len(values) * share / 2))
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.asarray([np.nanmedian(w) if np.isfinite(w).any() else np.nan for w in windows])


def time_unit(seconds: np.ndarray) -> tuple[float, str]:
    longest = float(np.nanmax(seconds, initial=0.0))
    return (3600.0, "hours") if longest > 10800 else (60.0, "minutes") if longest > 180 else (1.0, "seconds")


def log_if_wide(axes: Axes) -> None:
    low, high = axes.dataLim.ymin, axes.dataLim.ymax
    if 0 < 5 * low < high:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def legend(axes: Axes) -> None:
    """Above the axes, where it covers no data."""
    labels = axes.get_legend_handles_labels()[1]
    columns = 2 if max(map(len, labels), default=0) < 22 else 1
    axes.legend(
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=1.5,
        columnspacing=1.2,
    )
