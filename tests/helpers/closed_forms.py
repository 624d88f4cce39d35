"""Closed forms for SGD with momentum on the quadratic: losses of any theta, and exact expectations over the noise.

Every loss of a few steps is a polynomial in theta = [rate, momentum], so Gauss-Hermite quadrature with enough nodes
gives its expectation over N(0, I) without error.
"""

from itertools import product
from typing import NamedTuple

import numpy as np


class Quadratic(NamedTuple):
    """A quadratic and where its inner problem stands."""

    curvature: np.ndarray  # [d]
    error: np.ndarray  # [..., d], w - centre
    trace: np.ndarray  # [..., d], of the momentum


def of(problem, state) -> Quadratic:
    """What the engine's problem and state are in these terms."""
    data = {key: np.asarray(value, np.float64) for key, value in problem.data.items()}
    return Quadratic(
        data["curvature"], np.asarray(state.w["w"]) - data["centre"], np.asarray(state.optimizer[0].trace["w"])
    )


def unrolled(start: Quadratic, theta: np.ndarray, steps: int) -> tuple[np.ndarray, Quadratic]:
    """Mean loss [...] after each of `steps` updates at theta [..., 2], and where they lead."""
    rate, momentum = theta[..., 0, None], theta[..., 1, None]
    curvature, error, trace = start
    losses = []
    for _ in range(steps):
        trace = curvature * error + momentum * trace
        error = error - rate * trace
        losses.append(0.5 * np.sum(curvature * error**2, axis=-1))
    return np.mean(losses, axis=0), Quadratic(curvature, error, trace)


def last(start: Quadratic, theta: np.ndarray, steps: int) -> np.ndarray:
    """The loss [...] after the last of `steps` updates at theta [..., 2]."""
    end = unrolled(start, theta, steps)[1]
    return 0.5 * np.sum(end.curvature * end.error**2, axis=-1)


def gradient(start: Quadratic, theta: np.ndarray, steps: int) -> np.ndarray:
    """Of the mean loss in theta, [..., 2], by a complex step: exact."""
    steps_of = [unrolled(start, theta + 1e-30j * axis, steps)[0].imag / 1e-30 for axis in np.eye(2)]
    return np.stack(steps_of, axis=-1)


def nodes(dimensions: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, dimensions] and weights [n] that integrate polynomials over N(0, I) exactly up to degree 2 count - 1."""
    x, weight = np.polynomial.hermite_e.hermegauss(count)
    points = np.array(list(product(x, repeat=dimensions)))
    weights = np.prod(list(product(weight / weight.sum(), repeat=dimensions)), axis=1)
    return points, weights


def smoothed_gradient(start: Quadratic, theta: np.ndarray, sigma: float, steps: int) -> np.ndarray:
    """Gradient [2] of E[loss(theta + sigma n)]."""
    n, weight = nodes(2, 12)
    return weight @ (unrolled(start, theta + sigma * n, steps)[0][:, None] * n) / sigma


def truncated_path(start: Quadratic, theta: np.ndarray, sigma: float, steps: int, truncations: int):
    """Over quadrature points: the noise [K, n, 2] of K truncations, the mean loss [K, n] of each, and the weights [n]."""
    points, weight = nodes(2 * truncations, 4)
    noise = points.reshape(-1, truncations, 2).transpose(1, 0, 2)
    losses, state = [], start
    for n in noise:
        loss, state = unrolled(state, theta + sigma * n, steps)
        losses.append(loss)
    return noise, np.array(losses), weight


def carried_gradient(start: Quadratic, thetas: np.ndarray, steps: int, reach: int) -> np.ndarray:
    """Gradient [2] of the last window's mean loss in the thetas of the last `reach` + 1 of the windows [K, 2]."""
    first, total = len(thetas) - 1 - reach, np.zeros(2)
    for axis in np.eye(2):
        state = start
        for k, theta in enumerate(thetas):
            loss, state = unrolled(state, theta + 1e-30j * axis * (k >= first), steps)
        total += loss.imag / 1e-30 * axis
    return total
