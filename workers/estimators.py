"""The two gradient estimators of the smoothed outer loss, from one antithetic pair (paper section 3).

With n ~ N(0, I) and the losses L+ and L- of a truncation at theta +- sigma n, from the same inner state and on the same
batches:

    rp = (gradient of L+  +  gradient of L-) / 2          es = (L+ - L-) n / (2 sigma)

Given the incoming state both are unbiased for the gradient of that truncation's smoothed loss.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from workers.unroll import InnerState, Problem, Unroll


class Branch(NamedTuple):
    """One perturbed truncation."""

    loss: float  # mean clamped outer loss of its steps
    gradient: np.ndarray | None  # [P] float32, of that loss in theta; None where rp is skipped
    last: float  # outer loss after its last step
    state: InnerState  # after its last step


class Pair(NamedTuple):
    """One antithetic pair."""

    plus: Branch
    minus: Branch
    rp: np.ndarray | None  # [P] float64; None where it is skipped
    es: np.ndarray | None  # [P] float64; None at sigma = 0


def branch(
    unroll: Unroll, theta: np.ndarray, problem: Problem, state: InnerState, steps: int, with_gradient: bool
) -> Branch:
    """One truncation at theta [P]; without the gradient it costs about a quarter."""
    parameters = jnp.asarray(theta, jnp.float32)
    if with_gradient:
        losses, gradient, state = unroll.losses_and_grad(parameters, problem, state, steps)
    else:
        (losses, state), gradient = unroll.forward(parameters, problem, state, steps), None
    return Branch(float(losses.mean(dtype=np.float64)), gradient, float(losses[-1]), state)


def antithetic_pair(
    unroll: Unroll,
    theta: np.ndarray,
    noise: np.ndarray,
    sigma: float,
    problem: Problem,
    states: tuple[InnerState, InnerState],
    steps: int,
    with_rp: bool,
) -> Pair:
    """The pair at theta +- sigma noise.

    Args:
      theta, noise: [P]; noise is a draw of N(0, I).
      states: where + and - start; the truncated estimators start both at one state.
      steps: T.
    """
    if sigma == 0:  # plain truncated backpropagation (section 2.2): both branches are the same one
        only = branch(unroll, theta, problem, states[0], steps, with_rp)
        return Pair(only, only, None if only.gradient is None else only.gradient.astype(np.float64), None)
    plus = branch(unroll, theta + sigma * noise, problem, states[0], steps, with_rp)
    minus = branch(unroll, theta - sigma * noise, problem, states[1], steps, with_rp)
    rp = None
    if plus.gradient is not None and minus.gradient is not None:
        rp = (plus.gradient.astype(np.float64) + minus.gradient.astype(np.float64)) / 2
    return Pair(plus, minus, rp, (plus.loss - minus.loss) * noise / (2 * sigma))
