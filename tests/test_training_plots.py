"""The report's pictures of outer-training: labels, units, and values at the limits of what can be drawn."""

import math
from io import BytesIO

import numpy as np
import pytest
from helpers import run_files

from cluster.report import training_plots
from cluster.report.material import Material
from cluster.report.training_plots import TRAINING_PLOTS, column, logarithmic, smooth
from common.update_record import UNKNOWN, Quantiles, UpdateRecord


def material(history: list[UpdateRecord]) -> Material:
    return Material(history, [], None, "train")


@pytest.mark.parametrize("plot", TRAINING_PLOTS, ids=lambda plot: plot.name)
def test_training_plot_labels_both_axes(plot) -> None:
    figure = plot.draw(material(run_files.history(8)))
    assert figure is not None
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


@pytest.mark.parametrize("plot", TRAINING_PLOTS, ids=lambda plot: plot.name)
def test_training_plot_without_history_is_none(plot) -> None:
    assert plot.draw(material([])) is None


@pytest.mark.parametrize("scale, unit", [(1, "seconds"), (100, "minutes"), (3000, "hours")])
def test_outer_loss_time_has_the_unit_of_the_longest(scale: int, unit: str) -> None:
    longer = [record._replace(seconds=record.seconds * scale) for record in run_files.history(5)]
    figure = training_plots.outer_loss_time(material(longer))
    assert figure is not None and figure.axes[0].get_xlabel().endswith(f"({unit})")


def test_plots_draw_values_up_to_the_largest_float() -> None:
    largest = float(np.finfo(float).max)
    history = run_files.history(6)
    norms = history[3].norms._replace(gradient=largest)
    history[3] = history[3]._replace(var_rp=Quantiles(*[largest] * 5), norms=norms)
    for draw in (training_plots.variances, training_plots.norms):
        figure = draw(material(history))
        assert figure is not None
        figure.savefig(BytesIO(), format="png")


def test_variances_infinite_leave_the_axis_to_the_finite() -> None:
    history = run_files.history(6)
    history[3] = history[3]._replace(var_rp=Quantiles(1.0, 2.0, 3.0, math.inf, math.inf))
    figure = training_plots.variances(material(history))
    assert figure is not None and figure.axes[0].get_ylim()[1] < 1e30
    figure.savefig(BytesIO(), format="png")


def test_smooth_ignores_outliers_and_gaps() -> None:
    values = np.array([1.0, 1.0, 100.0, 1.0, np.nan, 1.0, 1.0])
    assert smooth(values).tolist() == [1.0] * 7


def test_column_of_a_number_that_is_unknown_is_nan() -> None:
    known, other = run_files.history(2)
    cells = column([known, other._replace(var_rp=UNKNOWN)], lambda r: r.var_rp.q50)
    assert cells[0] == known.var_rp.q50 and np.isnan(cells[1])


def test_logarithmic_drops_what_is_not_positive() -> None:
    values = logarithmic(np.array([-1.0, 0.0, 2.0, 1e300]))
    assert np.isnan(values[:2]).all() and values[2:].tolist() == [2.0, 1e250]
