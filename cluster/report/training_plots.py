"""The report's pictures of outer-training, drawn from the history."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from cluster.report.material import Material, Plot
from common.plotting import BLUE, COLOURS, GREEN, GREY, LINE, NAMES, VERMILION, VIOLET, legend_above, single
from common.update_record import Quantiles, UpdateRecord

LARGEST: Final = 1e250  # that a logarithmic axis can show


def outer_loss(material: Material) -> Figure | None:
    return _loss_against(material, versions(material.history), "outer updates")


def outer_loss_time(material: Material) -> Figure | None:
    seconds = column(material.history, lambda r: r.seconds)
    unit, name = time_unit(seconds)
    return _loss_against(material, seconds / unit, f"time since the learner started ({name})")


def _loss_against(material: Material, x: np.ndarray, xlabel: str) -> Figure | None:
    if not len(x):
        return None
    figure, axes = single(xlabel, f"outer loss, {material.objective} (nats)")
    loss = column(material.history, lambda r: r.loss)
    axes.plot(x, loss, ".", color=BLUE, alpha=0.3, markersize=4, label="one update")
    axes.plot(x, smooth(loss), color=BLUE, label="running median")
    legend_above(axes)
    return figure


def variances(material: Material) -> Figure | None:
    """The variance of both estimators over training (Figure 4 of the paper)."""
    figure, axes = single("outer updates", "variance of one pair (1 / theta²)")
    version = versions(material.history)
    bands = {"rp": [r.var_rp for r in material.history], "es": [r.var_es for r in material.history]}
    drawn = [_variance_band(axes, name, version, band) for name, band in bands.items()]
    if not any(drawn):
        return None
    axes.set_yscale("log")
    known = [v for band in bands.values() for q in band for v in q if v is not None and 0 < v < LARGEST]
    if known:  # what is infinite leaves the picture at its top
        axes.set_ylim(min(known) / 3, max(known) * 3)
    axes.yaxis.set_minor_formatter(NullFormatter())
    legend_above(axes)
    return figure


def _variance_band(axes: Axes, name: str, version: np.ndarray, band: Sequence[Quantiles]) -> bool:
    low, median, high = (logarithmic(np.asarray([q[level] for q in band], float)) for level in (0, 2, 4))
    if np.isnan(median).all():
        return False
    axes.fill_between(version, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.plot(version, median, color=COLOURS[name], label=NAMES[name])
    return True


def weights(material: Material) -> Figure | None:
    rows = [(*r.weight_rp.quantiles[::4], r.weight_rp.mean) for r in material.history]
    band = Banded("merge weight of rp", "5 to 95 % of the coordinates", VERMILION, (-0.03, 1.03))
    return _banded(material, rows, band)


def windows(material: Material) -> Figure | None:
    rows = [(r.windows.min, r.windows.max, r.windows.mean) for r in material.history]
    return _banded(material, rows, Banded("window (inner steps)", "shortest to longest", VIOLET))


class Banded(NamedTuple):
    """How a mean and the band around it are drawn."""

    ylabel: str
    band: str  # what it shows
    colour: str
    limits: tuple[float, float] | None = None


def _banded(material: Material, rows: Sequence[Sequence[float | None]], style: Banded) -> Figure | None:
    """A mean and the band around it. Args: rows: low, high and mean of each update."""
    low, high, mean = np.asarray(rows, float).reshape(-1, 3).T
    if not np.isfinite(mean).any():
        return None
    figure, axes = single("outer updates", style.ylabel)
    x = versions(material.history)
    axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0, label=style.band)
    axes.plot(x, mean, color=style.colour, label="mean")
    if style.limits:
        axes.set_ylim(*style.limits)
    legend_above(axes)
    return figure


def staleness(material: Material) -> Figure | None:
    if not material.history:
        return None
    figure, axes = single("outer updates", "staleness (versions)")
    x = versions(material.history)
    axes.plot(x, column(material.history, lambda r: r.staleness.max), ".", color=LINE, markersize=3, label="largest")
    axes.plot(
        x, smooth(column(material.history, lambda r: r.staleness.mean)), color=GREEN, label="mean, running median"
    )
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    legend_above(axes)
    return figure


def norms(material: Material) -> Figure | None:
    if not material.history:
        return None
    figure, axes = single("outer updates", "Euclidean norm")
    x = versions(material.history)
    drawn = (("merged gradient", BLUE), ("update of theta", VERMILION), ("theta", GREY))
    columns = np.asarray([r.norms for r in material.history], float).T
    for norm, (label, colour) in zip(columns, drawn, strict=True):
        axes.plot(x, logarithmic(norm), color=colour, label=label, linewidth=1)
    axes.set_yscale("log")
    legend_above(axes)
    return figure


def throughput(material: Material) -> Figure | None:
    """Inner steps per second over the updates."""
    seconds = column(material.history, lambda r: r.seconds)
    if len(seconds) < 2:
        return None
    took = np.diff(seconds, prepend=0.0)
    took[took <= 0] = np.nan  # the seconds start at zero in each incarnation of the learner
    figure, axes = single("outer updates", "inner steps per second")
    rate = column(material.history, lambda r: r.inner_steps) / took
    axes.plot(versions(material.history), smooth(rate), color=GREY, label="running median")
    axes.set_ylim(bottom=0)
    return figure


def column(history: Sequence[UpdateRecord], value: Callable[[UpdateRecord], float | None]) -> np.ndarray:
    """One number of each update [updates]; NaN where it is None."""
    return np.asarray(list(map(value, history)), dtype=float)


def versions(history: Sequence[UpdateRecord]) -> np.ndarray:
    """[updates] the versions: the x axis of most pictures."""
    return column(history, lambda r: r.version)


def logarithmic(values: np.ndarray) -> np.ndarray:
    """Values as a logarithmic axis can show them: NaN where not positive, limited to 1 / LARGEST and LARGEST."""
    return np.clip(np.where(values > 0, values, np.nan), 1 / LARGEST, LARGEST)


def smooth(values: np.ndarray, fraction: float = 0.05) -> np.ndarray:
    """Running median over a fraction of the values, at least 5: without lag and overshoot."""
    half = max(2, int(len(values) * fraction / 2))
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.asarray([np.nanmedian(w) if np.isfinite(w).any() else np.nan for w in windows])


def time_unit(seconds: np.ndarray) -> tuple[float, str]:
    """The unit that suits the longest of the times: its seconds, and its name."""
    longest = float(np.nanmax(seconds, initial=0.0))
    return (3600.0, "hours") if longest > 10800 else (60.0, "minutes") if longest > 180 else (1.0, "seconds")


TRAINING_PLOTS: Final = (
    Plot(
        "outer_loss",
        "Outer loss",
        "Mean over the pairs of each update; windows grow as training continues.",
        outer_loss,
    ),
    Plot("outer_loss_time", "Outer loss over time", "The same over wall-clock time.", outer_loss_time),
    Plot(
        "variances",
        "Variance of the two estimators",
        "Median over coordinates, band: 5 to 95 %; infinite ones leave at the top. The paper's Figure 4.",
        variances,
    ),
    Plot("weights", "Merge weight", "Of rp; es has the rest. Mean and 5 to 95 % of the coordinates.", weights),
    Plot("windows", "Windows", "Steps of one truncation: mean, and shortest to longest of a batch.", windows),
    Plot("staleness", "Staleness", "Age of the samples of an update, in versions.", staleness),
    Plot("norms", "Norms", "Before clipping; log scale.", norms),
    Plot("throughput", "Throughput", "Of all workers together.", throughput),
)
