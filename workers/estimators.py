"""Gradient estimators of the smoothed outer loss, from one antithetic pair of truncations (paper section 3).

With n ~ N(0, I) and L+ and L- the mean (or the last) outer losses of a truncation at theta +- sigma n, on the same batches:

    rp              (gradient of L+  +  gradient of L-) / 2
    es, truncated   (L+ - L-) n / (2 sigma)
    es, persistent  (L+ - L-) (n_1 + ... + n_k) / (2 sigma) T / K          in the problem's k-th truncation
    es, noise reuse (L+ - L-) n_1 / (2 sigma) T / K

    rp, persistent      d L / d theta + (L+ - L-) (n_1 + ... + n_(k-1-H)) / (2 sigma), times T / K

T is the length of the truncation, K that of the inner problem. Truncated estimators start both branches from the same
state; given that state, rp and es are unbiased for the gradient of this truncation's smoothed loss. The other two
carry both states from truncation to truncation, and their sum over an inner problem is unbiased for the gradient of
the whole problem's smoothed mean loss. Given all draws before, the part of PES that stems from the draws of the last
H + 1 truncations has the mean of a backpropagation through these, d L / d theta of either branch from its own states: it
may stand in their place, so rp can be merged with PES, by weights that do not depend on those draws. H is
`estimator.reach`; with H = 0 rp covers the newest draw alone, and the noise of the older ones stays.

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
from workers.segment import Cotangent
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

    loss: float  # of the clamped outer losses of its steps, the mean or the last one (`estimator.outer_loss`)
    gradient: np.ndarray | None  # [P] float32, of that loss with respect to theta; None where rp is skipped
    last: float  # outer loss after its last step
    state: InnerState  # after its last step
    cotangent: Cotangent | None = None  # of the state before its first step; None where rp is skipped


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
    gradient = cotangent = None
    if with_gradient:
        losses, cotangent, state = unroll.losses_and_cotangent(parameters, problem, state, steps)
        gradient = np.asarray(cotangent.theta)
    else:
        losses, state = unroll.forward(parameters, problem, state, steps)
    return Branch(unroll.outer_loss.reduced(losses), gradient, float(losses[-1]), state, cotangent)


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


def usable_rp(estimates: Sequence[np.ndarray | None], estimator: EstimatorConfig) -> list[np.ndarray]:
    """The rp [P] that contribute to its moments, of one for each pair, None where it is skipped.

    Under `estimator.use = "rp"` there is no es that could replace a non-finite rp, so `estimator.rp_nonfinite` applies.
    Otherwise the learner judges each coordinate (`learner.merge`).
    """
    computed = [rp for rp in estimates if rp is not None]
    if estimator.use != "rp":
        return computed
    if estimator.rp_nonfinite == "drop":
        return [rp for rp in computed if np.isfinite(rp).all()]
    return [
        rp if np.isfinite(rp).all() else np.clip(np.nan_to_num(rp, nan=0.0, posinf=CLIP), -CLIP, CLIP)
        for rp in computed
    ]


def clipped_pairs(estimates: Sequence[np.ndarray | None], estimator: EstimatorConfig) -> int:
    """How many of the estimates `usable_rp` clips, with zero in the place of nan."""
    if estimator.use != "rp" or estimator.rp_nonfinite != "clip":
        return 0
    return sum(rp is not None and not np.isfinite(rp).all() for rp in estimates)


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


class PastWindow(NamedTuple):
    """A truncation of the inner problem in progress, kept so that rp can reach back over it."""

    perturbation: Perturbation  # of both branches; theta as it was then
    truncation: Truncation


def reached_rp(unroll: Unroll, pair: Pair, past: Sequence[PastWindow]) -> np.ndarray | None:
    """rp [P] float64 of a pair, backpropagated through earlier truncations too. Each costs as much as the pair itself.

    Args:
      past: the truncations just before the pair's, oldest first.
    """
    if pair.rp is None or not past:
        return pair.rp
    total = np.zeros_like(pair.rp)
    for sign, end in ((1, pair.plus), (-1, pair.minus)):
        assert end.cotangent is not None
        cotangent = end.cotangent
        for (theta, noise, sigma), (problem, plus, minus, steps) in reversed(past):
            parameters = jnp.asarray(theta + sign * sigma * noise, jnp.float32)
            cotangent = unroll.pull_back(parameters, problem, plus if sign > 0 else minus, steps, cotangent)
        total += np.asarray(cotangent.theta, np.float64)
    return total / 2


def whole_problem_rp(
    pair: Pair, rp: np.ndarray | None, older: np.ndarray, sigma: float, fraction: float
) -> np.ndarray | None:
    """`whole_problem_es` with rp in the place of the newest draws: [P] float64; None where rp is skipped.

    Args:
      rp: of `reached_rp`.
      older: [P] sum of the problem's draws that rp does not cover.
      fraction: T / K.
    """
    return None if rp is None else (rp + (pair.plus.loss - pair.minus.loss) * older / (2 * sigma)) * fraction
