"""Landscapes around theta: two orthonormal directions, and the curvature of slices."""

import numpy as np
import pytest
from helpers.figures import result, train

from common.optimizer import initial_theta
from workers.evaluation.comparison import LEARNED
from workers.evaluation.jobs import UnrollJob, encode
from workers.figures import fig2
from workers.figures.figure import config_of, evaluator_of
from workers.figures.landscape import Grid, Slice, bending, directions, losses_at, rows, slices

QUADRATIC = ("mini", "task.family=quadratic", "optimizer.family=sgd", "task.inner_steps=20", "curriculum.end=20")


@pytest.fixture(scope="module")
def across():
    theta = encode(initial_theta(config_of(QUADRATIC)))
    grid = Grid(3, 0.1, [2, 6])
    return [*slices(QUADRATIC, theta, grid), *rows(QUADRATIC, theta, grid)]


def test_directions_are_orthonormal(across):
    job = across[0]
    evaluator = evaluator_of(job.settings)
    problem, state, _ = evaluator.start(UnrollJob(LEARNED, 0, theta=job.theta, outer_split="outer_train"))
    axes = directions(job, evaluator.unroll(LEARNED), problem, state)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)


def test_slice_and_plane_agree_at_theta(across):
    """The middle of the slice and of the middle row of the plane is theta itself."""
    one, row = (fig2.perform(job, train) for job in (across[0], across[2]))
    assert [line[1] for line in one.losses] == [line[1] for line in row.losses]
    assert [line[0] for line in losses_at(across[0], [(0.0, 0.0)])] == [line[1] for line in one.losses]


def test_bending_is_the_ratio_of_relative_curvatures():
    """A parabola of three points bends by twice its range, a kink at the middle of a line by as much as its range."""
    smooth, kinked = [0.0, 1.0, 2.0, 3.1], [0.0, 0.0, 0.0, 3.0]
    found = bending([result(Slice, losses=[smooth, kinked]) for _ in range(2)])
    assert found is not None and found.value == pytest.approx(1.0 / (0.1 / 3.1))
    assert bending([]) is None
