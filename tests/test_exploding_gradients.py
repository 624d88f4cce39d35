"""Section 2.3 of the paper: for w' = w - theta grad l(w), with the gradients g and Hessians H along the path,

d l(w^(T)) / d theta = < g^(T), - sum_i (prod_{j > i} (I - theta H^(j))) g^(i) >
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.config import OptimizerConfig
from common.optimizer import make_family
from common.task import TaskFamily
from workers.unroll import OuterLoss, Problem, Unroll

START = np.array([0.7, -1.1, 0.4])
CURVATURE = np.array([0.5, 1.0, 3.0])
COUPLING = np.array([[0.0, 0.8, -0.5], [0.0, 0.0, 0.6], [0.0, 0.0, 0.0]])


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def bent(w):
    """Not quadratic, and its Hessians at two points do not commute."""
    return jnp.sum(w**4) / 4 + jnp.sin(w) @ COUPLING @ w + jnp.cos(w[0] * w[2]) + 3


def quadratic(w):
    return CURVATURE @ w**2 / 2


def by_the_formula(loss, rate, steps):
    gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
    w, gradients, hessians = jnp.asarray(START), [], []
    for _ in range(steps):
        gradients.append(np.asarray(gradient(w)))
        hessians.append(np.asarray(hessian(w)))
        w = w - rate * gradients[-1]
    total = np.zeros(len(w))
    for i in range(steps):
        term = gradients[i]
        for j in range(i + 1, steps):
            term = (np.eye(len(w)) - rate * hessians[j]) @ term
        total -= term
    return float(np.asarray(gradient(w)) @ total)


def by_the_engine(loss, rate, lengths):
    """Of the loss after so many steps; the engine differentiates the mean of the losses after each of them."""
    task = TaskFamily(
        sample=lambda random, split: {},
        init=lambda key: {"w": jnp.asarray(START)},
        batch=lambda data, key, split: data,
        loss=lambda w, batch: loss(w["w"]),
    )
    unroll = Unroll(task, make_family(OptimizerConfig(family="sgd")), OuterLoss(clamp=1e30), segment=4)
    problem, theta = Problem({}, jax.random.key(0)), jnp.array([rate, 0.0])  # without momentum
    state = unroll.start(problem, jax.random.key(1))
    sums = {0: 0.0}
    for steps in {n for length in lengths for n in (length - 1, length)} - {0}:
        sums[steps] = steps * float(unroll.losses_and_grad(theta, problem, state, steps)[1][0])
    return [sums[length] - sums[length - 1] for length in lengths]


@pytest.mark.heavy
def test_gradient_is_a_sum_of_products_of_hessians():
    lengths = (1, 2, 3, 5, 9)
    expected = [by_the_formula(bent, 0.15, steps) for steps in lengths]
    np.testing.assert_allclose(by_the_engine(bent, 0.15, lengths), expected, rtol=1e-11)
    hessians = [np.asarray(jax.jit(jax.hessian(bent))(jnp.asarray(point))) for point in (START, START[::-1].copy())]
    assert np.abs(hessians[0] @ hessians[1] - hessians[1] @ hessians[0]).max() > 0.1


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_gradient_of_a_quadratic_is_a_polynomial_in_theta(rate):
    """l(w^(T)) = sum h w0^2 (1 - theta h)^(2 T) / 2. At theta = 1 the largest |1 - theta h| is 2: a factor 4 a step."""
    lengths = (1, 7, 20, 21)
    expected = [
        -steps * np.sum((CURVATURE * START) ** 2 * (1 - rate * CURVATURE) ** (2 * steps - 1)) for steps in lengths
    ]
    np.testing.assert_allclose(by_the_engine(quadratic, rate, lengths), expected, rtol=1e-9)
    growth = expected[-1] / expected[-2]
    assert growth == pytest.approx(4 * 21 / 20) if rate == 1.0 else growth < 1
