"""The report's pictures of the evaluation: labels, and the sign of differences."""

import dataclasses

import numpy as np
import pytest
from helpers import run_files

from cluster.report import evaluation_plots
from cluster.report.evaluation_plots import EVALUATION_PLOTS
from cluster.report.material import Material
from common.config import EvaluationConfig
from workers.evaluation.comparison import compare
from workers.evaluation.results import BySplit, parse


@pytest.fixture(scope="module")
def evaluated() -> Material:
    unrolls = parse(run_files.unrolls(tasks=4, starts=2, baselines=("adam", "sgd")))
    return Material([], unrolls, compare(unrolls, "train", EvaluationConfig(), "f" * 64), "train")


@pytest.mark.parametrize("plot", EVALUATION_PLOTS, ids=lambda plot: plot.name)
def test_evaluation_plot_labels_both_axes(plot, evaluated: Material) -> None:
    figure = plot.draw(evaluated)
    assert figure is not None
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


@pytest.mark.parametrize("plot", EVALUATION_PLOTS, ids=lambda plot: plot.name)
def test_evaluation_plot_without_comparison_is_none(plot) -> None:
    assert plot.draw(Material([], [], None, "train")) is None


def test_versions_of_a_mixture_have_a_line_for_each_family() -> None:
    one, *_ = [u for u in parse(run_files.unrolls(tasks=1, starts=1)) if u.optimizer == "learned"]
    unrolls = [
        dataclasses.replace(one, outer_split="outer_train", version=version, member=name, means=BySplit(*[loss] * 3))
        for name, losses in {"bowl": (4.0, 1.0), "net": (0.2, 0.1)}.items()
        for version, loss in enumerate(losses)
    ]
    figure = evaluation_plots.evaluations(Material([], unrolls, None, "train"))
    assert figure is not None
    lines = {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[0].get_lines()}  # type: ignore[arg-type]
    assert lines == {"bowl": [1.0, 0.25], "net": [1.0, 0.5]}


def test_differences_are_positive_where_the_learned_is_better(evaluated: Material) -> None:
    figure = evaluation_plots.differences(evaluated)
    assert figure is not None
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["Adam (4 of 4 won)", "SGD + momentum (4 of 4 won)"]
    corners = np.concatenate([patch.get_path().vertices for patch in figure.axes[0].patches])
    assert corners[corners[:, 1] > 0, 0].min() >= 0 and corners[:, 1].max() <= 4
