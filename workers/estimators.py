"""Gradient estimators of the smoothed outer loss, from one antithetic pair of truncations (paper section 3).

With n ~ N(0, I) and L+ and L- the mean outer losses of a truncation at theta +- sigma n, on the same batches:

    rp              (gradient of L+  +  gradient of L-) / 2
    es, truncated   (L+ - L-) n / (2 sigma)
    es, persistent  (L+ - L-) (n_1 + ... + n_k) / (2 sigma) T / K          in the problem's k-th truncation
    es, noise reuse (L+ - L-) n_1 / (2 sigma) T / K

T is the length of the truncation, K that of the inner problem. Truncated estimators start both branches from the same
state; given that state, rp and es are unbiased for the gradient of this truncation's smoothed loss. The other two
carry both states from truncation to truncation, and their sum over an inner problem is unbiased for the gradient of
the whole problem's smoothed mean loss:

    persistent (PES)   Vicol, Metz, Sohl-Dickstein: Unbiased Gradient Estimation in Unrolled Computation Graphs with
                       Persistent Evolution Strategies. ICML 2021, arXiv:2112.13835
    noise reuse (NRES) Li, Harrison, Sohl-Dickstein, Smith, Metz: Variance-Reduced Gradient Estimation via Noise-Reuse
                       in Online Evolution Strategies. NeurIPS 2023, arXiv:2304.12180
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from common.config import EstimatorConfig
from workers.unroll import InnerState, Problem, Unroll

CLIP = 1e15  # of a coordinate of an rp that is not finite, under `estimator.rp_nonfinite = "clip"`


class Perturbation(NamedTuple):
    """The two outer-parameter vectors of an antithetic pair, theta +- sigma noise."""

    theta: np.ndarray  # [P]
    noise: np.ndarray  # [P], a draw of N(0, I)
    sigma: float


class Truncation(NamedTuple):
    """The inner steps that both branches of a pair take."""

    problem: Problem
    plus: InnerState  # where the + branch starts
    minus: InnerState  # where the - branch starts; `plus` for the truncated estimators
    steps: int  # T


class Branch(NamedTuple):
    """One perturbed truncation."""

    loss: float  # mean clamped outer loss of its steps
    gradient: np.ndarray | None  # [P] float32, of that loss with respect to theta; None where rp is skipped
    last: float  # outer loss after its last step
    state: InnerState  # after its last step


class Pair(NamedTuple):
    """One antithetic pair."""

    plus: Branch
    minus: Branch
    rp: np.ndarray | None  # [P] float64; None where it is skipped
    es: np.ndarray | None  # [P] float64, truncated; None at sigma = 0


def branch(
    unroll: Unroll, theta: np.ndarray, truncation: Truncation, state: InnerState, *, with_gradient: bool
) -> Branch:
    """One truncation from `state` at theta [P]; without the gradient it costs about a quarter."""
    parameters, problem, steps = jnp.asarray(theta, jnp.float32), truncation.problem, truncation.steps
    if with_gradient:
        losses, gradient, state = unroll.losses_and_grad(parameters, problem, state, steps)
    else:
        (losses, state), gradient = unroll.forward(parameters, problem, state, steps), None
    return Branch(float(losses.mean(dtype=np.float64)), gradient, float(losses[-1]), state)


def antithetic_pair(unroll: Unroll, perturbation: Perturbation, truncation: Truncation, *, with_rp: bool) -> Pair:
    """The pair at theta +- sigma noise. At sigma = 0 (plain truncated backpropagation, section 2.2) one branch is both."""
    theta, noise, sigma = perturbation
    if sigma == 0:
        only = branch(unroll, theta, truncation, truncation.plus, with_gradient=with_rp)
        return Pair(only, only, None if only.gradient is None else only.gradient.astype(np.float64), None)
    plus = branch(unroll, theta + sigma * noise, truncation, truncation.plus, with_gradient=with_rp)
    minus = branch(unroll, theta - sigma * noise, truncation, truncation.minus, with_gradient=with_rp)
    rp = None
    if plus.gradient is not None and minus.gradient is not None:
        rp = (plus.gradient.astype(np.float64) + minus.gradient.astype(np.float64)) / 2
    return Pair(plus, minus, rp, (plus.loss - minus.loss) * noise / (2 * sigma))


def usable_rp(pairs: Sequence[Pair], estimator: EstimatorConfig) -> list[np.ndarray]:
    """rp [P] of those pairs that contribute to its moments.

    Under `estimator.use = "rp"` there is no es that could replace a non-finite rp, so `estimator.rp_nonfinite` applies.
    Otherwise the learner judges each coordinate (`learner.merge`).
    """
    computed = [pair.rp for pair in pairs if pair.rp is not None]
    if estimator.use != "rp":
        return computed
    if estimator.rp_nonfinite == "drop":
        return [rp for rp in computed if np.isfinite(rp).all()]
    return [
        rp if np.isfinite(rp).all() else np.clip(np.nan_to_num(rp, nan=0.0, posinf=CLIP), -CLIP, CLIP)
        for rp in computed
    ]


def clipped_pairs(pairs: Sequence[Pair], estimator: EstimatorConfig) -> int:
    """How many of the pairs `usable_rp` clips, with zero in the place of nan."""
    if estimator.use != "rp" or estimator.rp_nonfinite != "clip":
        return 0
    return sum(pair.rp is not None and not np.isfinite(pair.rp).all() for pair in pairs)


class Noise(NamedTuple):
    """The noise of one truncation and what the next one of the same inner problem carries."""

    current: np.ndarray  # [P] what perturbs theta in this truncation
    carried: np.ndarray  # [P] what es is multiplied with; persistent: the sum of the problem's draws


def truncation_noise(es: str, draw: np.ndarray, carried: np.ndarray, *, first: bool) -> Noise:
    """The noise of the next truncation under `estimator.es`.

    Args:
      draw: [P] a new draw of N(0, I).
      carried: [P] from the problem's previous truncation.
      first: whether the inner problem starts with this truncation.
    """
    if es == "persistent":
        return Noise(draw, carried + draw)
    if es == "noise_reuse" and not first:
        return Noise(carried, carried)
    return Noise(draw, draw)


def whole_problem_es(pair: Pair, carried: np.ndarray, sigma: float, fraction: float) -> np.ndarray:
    """PES or NRES [P] float64 of one truncation.

    Args:
      carried: [P] the noise behind both states, `Noise.carried`.
      fraction: T / K, which makes the sum over the truncations that of the problem's mean loss.
    """
    return (pair.plus.loss - pair.minus.loss) * carried / (2 * sigma) * fraction
