"""The pictures of the report: records in, matplotlib figures out. One axes each, so that a phone can stack them.

Every function takes `Material` and returns a figure, or None if the run has nothing to draw it from.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from cluster.report.canvas import (
    COLOURS,
    INK,
    NAMES,
    canvas,
    column,
    legend,
    log_if_wide,
    logarithmic,
    smooth,
    time_unit,
)
from common.update_record import Quantiles, UpdateRecord
from workers.evaluation.comparison import LEARNED, Comparison
from workers.evaluation.curves import best_unrolls, mean_curves
from workers.evaluation.results import UnrollResult


class Material(NamedTuple):
    """What a report draws from."""

    history: Sequence[UpdateRecord]
    unrolls: Sequence[UnrollResult]
    comparison: Comparison | None
    objective: str


class Plot(NamedTuple):
    name: str  # of the file
    title: str
    caption: str
    section: str
    draw: Callable[[Material], Figure | None]


def outer_loss(material: Material) -> Figure | None:
    return _loss_against(material, column(material.history, lambda r: r.version), "outer updates")


def outer_loss_time(material: Material) -> Figure | None:
    seconds = column(material.history, lambda r: r.seconds)
    unit, name = time_unit(seconds)
    return _loss_against(material, seconds / unit, f"time since the learner started ({name})")


def _loss_against(material: Material, x: np.ndarray, xlabel: str) -> Figure | None:
    if not len(x):
        return None
    figure, axes = canvas(xlabel, f"outer loss, {material.objective} (nats)")
    loss = column(material.history, lambda r: r.loss)
    axes.plot(x, loss, ".", color=COLOURS["learned"], alpha=0.3, markersize=4, label="one update")
    axes.plot(x, smooth(loss), color=COLOURS["learned"], label="running median")
    legend(axes)
    return figure


def variances(material: Material) -> Figure | None:
    """Figure 4 of the paper."""
    figure, axes = canvas("outer updates", "variance of one pair (1 / theta²)")
    version = column(material.history, lambda r: r.version)
    bands = {"rp": [r.var_rp for r in material.history], "es": [r.var_es for r in material.history]}
    drawn = [_variance_band(axes, name, version, band) for name, band in bands.items()]
    if not any(drawn):
        return None
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    legend(axes)
    return figure


def _variance_band(axes: Axes, name: str, version: np.ndarray, band: Sequence[Quantiles]) -> bool:
    low, median, high = (logarithmic(np.asarray([q[level] for q in band], float)) for level in (0, 2, 4))
    if np.isnan(median).all():
        return False
    axes.fill_between(version, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
    label = {"rp": "reparameterization", "es": "evolution strategies"}[name]
    axes.plot(version, median, color=COLOURS[name], label=label)
    return True


def weights(material: Material) -> Figure | None:
    rows = [(*r.weight_rp.quantiles[::4], r.weight_rp.mean) for r in material.history]
    band = Banded("merge weight of rp", "5 to 95 % of the coordinates", COLOURS["rp"], (-0.03, 1.03))
    return _banded(material, rows, band)


def windows(material: Material) -> Figure | None:
    rows = [(r.windows.min, r.windows.max, r.windows.mean) for r in material.history]
    return _banded(material, rows, Banded("window (inner steps)", "shortest to longest", "#6639ba"))


class Banded(NamedTuple):
    """How a mean and the band around it are drawn."""

    ylabel: str
    band: str  # what it shows
    colour: str
    limits: tuple[float, float] | None = None


def _banded(material: Material, rows: Sequence[Sequence[float | None]], style: Banded) -> Figure | None:
    """`rows`: low, high and mean of each update."""
    low, high, mean = np.asarray(rows, float).reshape(-1, 3).T
    if not np.isfinite(mean).any():
        return None
    figure, axes = canvas("outer updates", style.ylabel)
    x = column(material.history, lambda r: r.version)
    axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0, label=style.band)
    axes.plot(x, mean, color=style.colour, label="mean")
    if style.limits:
        axes.set_ylim(*style.limits)
    legend(axes)
    return figure


def staleness(material: Material) -> Figure | None:
    if not material.history:
        return None
    figure, axes = canvas("outer updates", "staleness (versions)")
    x = column(material.history, lambda r: r.version)
    axes.plot(
        x, column(material.history, lambda r: r.staleness.max), ".", color="#8c959f", markersize=3, label="largest"
    )
    axes.plot(
        x, smooth(column(material.history, lambda r: r.staleness.mean)), color="#1a7f37", label="mean, running median"
    )
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    legend(axes)
    return figure


def norms(material: Material) -> Figure | None:
    if not material.history:
        return None
    figure, axes = canvas("outer updates", "Euclidean norm")
    x = column(material.history, lambda r: r.version)
    drawn = (("merged gradient", "#0072B2"), ("update of theta", "#D55E00"), ("theta", "#57606a"))
    columns = np.asarray([r.norms for r in material.history], float).T
    for norm, (label, colour) in zip(columns, drawn, strict=True):
        axes.plot(x, logarithmic(norm), color=colour, label=label, linewidth=1)
    axes.set_yscale("log")
    legend(axes)
    return figure


def throughput(material: Material) -> Figure | None:
    """Inner steps per second, update by update."""
    seconds = column(material.history, lambda r: r.seconds)
    if len(seconds) < 2:
        return None
    took = np.diff(seconds, prepend=0.0)
    took[took <= 0] = np.nan  # a learner that came back counts from zero again
    figure, axes = canvas("outer updates", "inner steps per second")
    rate = column(material.history, lambda r: r.inner_steps) / took
    axes.plot(column(material.history, lambda r: r.version), smooth(rate), color="#57606a", label="running median")
    axes.set_ylim(bottom=0)
    return figure


def evaluations(material: Material) -> Figure | None:
    """The learned optimizer on unseen tasks while it was being trained; None if it was evaluated once."""
    groups: dict[int, list[float]] = {}
    for u in material.unrolls:
        first = u.outer_split == "outer_test" and u.initialisation == 0
        if u.optimizer == LEARNED and first and u.version is not None:
            groups.setdefault(u.version, []).append(u.mean(material.objective))
    if len(groups) < 2:
        return None
    figure, axes = canvas("outer updates", f"mean {material.objective} loss, unseen tasks (nats)")
    x = sorted(groups)
    axes.plot(x, [np.mean(groups[v]) for v in x], "o-", color=COLOURS["learned"], markersize=4, label="learned")
    for b in material.comparison.baselines if material.comparison else ():
        axes.axhline(b.per_task.mean(), color=COLOURS[b.optimizer], linestyle="--", label=NAMES[b.optimizer])
    legend(axes)
    return figure


def learning_curves(split: str, axis: str) -> Callable[[Material], Figure | None]:
    """Figure 6a and 6b: loss over inner steps or over seconds, 25 / 75 percentile bands over initialisations."""

    def draw(material: Material) -> Figure | None:
        comparison = material.comparison
        if comparison is None:
            return None
        figure, axes = canvas({"steps": "inner steps", "seconds": "seconds"}[axis], f"{split} loss (nats)")
        for name in ("learned", *(b.optimizer for b in comparison.baselines)):
            x, rows = mean_curves(best_unrolls(material.unrolls, name, comparison), split, axis)
            axes.plot(x, np.median(rows, axis=0), color=COLOURS[name], label=NAMES[name])
            low, high = np.percentile(rows, [25, 75], axis=0)
            axes.fill_between(x, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        axes.set_xlim(left=0)
        log_if_wide(axes)
        legend(axes)
        return figure

    return draw


def differences(material: Material) -> Figure | None:
    """Figure 6c: how the difference of the means is distributed over tasks. Positive: better than the baseline."""
    if material.comparison is None:
        return None
    figure, axes = canvas("baseline loss - learned loss (nats)", "tasks")
    gaps = {b.optimizer: b.per_task - material.comparison.learned for b in material.comparison.baselines}
    edges = _edges(np.concatenate(list(gaps.values()))).tolist()
    for name, gap in gaps.items():
        axes.hist(gap, edges, histtype="stepfilled", color=COLOURS[name], alpha=0.25)
        axes.hist(gap, edges, histtype="step", color=COLOURS[name], linewidth=1.5, label=_wins(name, gap))
    axes.axvline(0, color=INK, linewidth=1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)
    return figure


def _wins(name: str, gap: np.ndarray) -> str:
    return f"{NAMES[name]} ({int((gap > 0).sum())} of {len(gap)} won)"


def _edges(values: np.ndarray) -> np.ndarray:
    """Bin edges over all values and zero, such that zero is an edge."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    width = max((high - low) / 16, 1e-6)
    return width * np.arange(np.floor(low / width), np.ceil(high / width) + 1)


OUTER, INNER = "Outer-training", "On tasks it has never seen"
_BAND = "Mean of the tasks run from every initialisation, baselines at the best rate of each; line: median, band: 25 to 75 % over initialisations."

PLOTS: Final = (
    Plot("train_steps", "Training loss over steps", _BAND, INNER, learning_curves("train", "steps")),
    Plot("train_seconds", "Training loss over time", _BAND, INNER, learning_curves("train", "seconds")),
    Plot("valid_steps", "Validation loss over steps", _BAND, INNER, learning_curves("valid", "steps")),
    Plot("valid_seconds", "Validation loss over time", _BAND, INNER, learning_curves("valid", "seconds")),
    Plot("test_steps", "Test loss over steps", _BAND, INNER, learning_curves("test", "steps")),
    Plot(
        "differences",
        "Task by task",
        "Right of zero: the learned optimizer has the lower mean loss, against the best rate of that task.",
        INNER,
        differences,
    ),
    Plot(
        "evaluations",
        "While it was trained",
        "Mean loss on unseen tasks by outer update; dashed: baselines at the best rate of each task.",
        INNER,
        evaluations,
    ),
    Plot("outer_loss", "Outer loss", "Mean over the pairs of each update; windows grow with it.", OUTER, outer_loss),
    Plot("outer_loss_time", "Outer loss over time", "The same over wall-clock time.", OUTER, outer_loss_time),
    Plot(
        "variances",
        "Variance of the two estimators",
        "Median over coordinates, band: 5 to 95 %. The paper's Figure 4.",
        OUTER,
        variances,
    ),
    Plot("weights", "Merge weight", "Of rp; es has the rest. Mean and 5 to 95 % of coordinates.", OUTER, weights),
    Plot("windows", "Windows", "Steps of one truncation: mean, and shortest to longest of a batch.", OUTER, windows),
    Plot("staleness", "Staleness", "How many versions old the samples of an update were.", OUTER, staleness),
    Plot("norms", "Norms", "Before the clip; log scale.", OUTER, norms),
    Plot("throughput", "Throughput", "All workers together.", OUTER, throughput),
)
