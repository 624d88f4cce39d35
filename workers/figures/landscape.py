"""The outer loss of a learned optimizer around its theta, along a slice and on a plane (Figure 2e and 2f)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from common import streams
from workers.evaluation.comparison import LEARNED
from workers.evaluation.jobs import UnrollJob, decode
from workers.figures.figure import Job, Results, Settings, evaluator_of, input_only, of_kind, rounded
from workers.figures.statistics import Interval, geometric
from workers.unroll import InnerState, Problem, Unroll


@dataclass(frozen=True, kw_only=True)
class LandscapeJob(Job):
    """Outer losses of a learned optimizer around its theta."""

    theta: str = input_only()
    problem: int
    points: int
    width: float
    steps: Sequence[int]  # T

    def grid(self) -> np.ndarray:
        return np.linspace(-self.width, self.width, self.points)


@dataclass(frozen=True, kw_only=True)
class SliceJob(LandscapeJob, figure="fig2", kind="slice"):
    """Along the direction of the outer gradient."""

    problems: int


@dataclass(frozen=True, kw_only=True)
class Slice(SliceJob):
    losses: Sequence[Sequence[float]]  # [T, points]


@dataclass(frozen=True, kw_only=True)
class PlaneJob(LandscapeJob, figure="fig2", kind="plane"):
    """One row of the plane that the gradient and a random direction span."""

    row: int


@dataclass(frozen=True, kw_only=True)
class Plane(PlaneJob):
    losses: Sequence[Sequence[float]]  # [T, points]


class Grid(NamedTuple):
    """Where a landscape is sampled."""

    points: int
    width: float
    steps: list[int]
    problems: int = 1


def slices(settings: Settings, theta: str, grid: Grid) -> list[Job]:
    """Slices through theta, one for each problem."""
    return [
        SliceJob(label=f"slice{k}", settings=settings, theta=theta, problem=k, **grid._asdict()).named()
        for k in range(grid.problems)
    ]


def rows(settings: Settings, theta: str, grid: Grid) -> list[Job]:
    """The rows of a plane through theta on one problem."""
    return [
        PlaneJob(
            label=f"plane{row}",
            settings=settings,
            theta=theta,
            problem=0,
            row=row,
            points=grid.points,
            width=grid.width,
            steps=grid.steps,
        ).named()
        for row in range(grid.points)
    ]


def perform(job: LandscapeJob) -> Job:
    if isinstance(job, SliceJob):
        return Slice.of(job, losses=losses_at(job, [(x, 0.0) for x in job.grid()]))
    assert isinstance(job, PlaneJob)
    return Plane.of(job, losses=losses_at(job, [(x, job.grid()[job.row]) for x in job.grid()]))


def directions(job: LandscapeJob, unroll: Unroll, problem: Problem, state: InnerState) -> np.ndarray:
    """Two orthonormal directions [2, P] in theta: that of the outer gradient over few steps, and a random one."""
    theta = decode(job.theta)
    gradient = unroll.losses_and_grad(jnp.asarray(theta), problem, state, job.steps[0])[1].astype(np.float64)
    other = streams.generator(streams.DIRECTION).normal(size=len(theta))
    first = gradient / np.linalg.norm(gradient)
    other -= first * (first @ other)
    return np.stack([first, other / np.linalg.norm(other)])


def losses_at(job: LandscapeJob, positions: list[tuple[float, float]]) -> list[list[float]]:
    """[T, positions] mean outer loss of the first T steps, at theta moved along the two directions."""
    evaluator = evaluator_of(job.settings)
    problem, state, _ = evaluator.start(UnrollJob(LEARNED, job.problem, theta=job.theta, outer_split="outer_train"))
    unroll, theta = evaluator.unroll(LEARNED), decode(job.theta)
    axes = directions(job, unroll, problem, state)
    losses = []
    for position in positions:
        moved = jnp.asarray(theta + np.asarray(position) @ axes, jnp.float32)
        every = unroll.forward(moved, problem, state, max(job.steps))[0]
        losses.append([every[:steps].mean(dtype=np.float64) for steps in job.steps])
    rows: list[list[float]] = rounded(np.transpose(losses))
    return rows


def bending(results: Results) -> Interval | None:
    """Largest second difference of a slice relative to its range: at the most steps over at the fewest; geometric mean."""
    found = of_kind(results, Slice)
    if not found:
        return None
    values = []
    for one in found:
        bend = [np.abs(np.diff(line, 2)).max() / max(np.ptp(line), 1e-12) for line in np.asarray(one.losses)]
        values.append(max(bend[-1], 1e-12) / max(bend[0], 1e-12))
    return geometric(np.array(values))
