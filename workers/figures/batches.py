"""The variance of merged gradients, over repeated batches: at most the lower of those of rp and es (paper section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.inverse_variance import FLOOR, blend, inverse_variance
from common.moments import of, variance
from workers.figures.figure import Job, input_only, rounded
from workers.figures.statistics import bootstrap, every, word

SMALLEST = 1e-30  # variance whose logarithm is taken
MARGIN = 0.3  # of the decimal logarithm: a factor of 2, since the weights are estimated from the batch itself


@dataclass(frozen=True, kw_only=True)
class MergesJob(Job, figure="fig4", kind="merges"):
    """Batches of pairs at one theta and one window, merged by equation 1 with one weight for all of theta."""

    when: str  # which theta
    window: int
    pairs: int  # in all
    batch: int  # pairs of a batch
    theta: str = input_only()


@dataclass(frozen=True, kw_only=True)
class Merges(MergesJob):
    weights_rp: Sequence[float]  # [batches]
    log_ratio: tuple[float, float, float]  # value, low and high of `log_ratio`


def perform(job: MergesJob, pairs: np.ndarray) -> Merges:
    """The result of a job with these pairs [n, 2, P] of rp and es."""
    batches = pairs.reshape(-1, job.batch, *pairs.shape[1:])
    weights = [weight_rp(batch) for batch in batches]
    return Merges.of(job, weights_rp=rounded(weights), log_ratio=rounded(bootstrap(batches, log_ratio)))


def weight_rp(batch: np.ndarray) -> float:
    """Equation 1 for a batch [n, 2, P]: weight of rp by inverse variance, both averaged over the coordinates."""
    with np.errstate(invalid="ignore", over="ignore"):
        var_rp, var_es = (variance(of(batch[:, kind]), FLOOR).mean() for kind in (0, 1))
    return float(inverse_variance(var_rp, var_es))


def merge(batch: np.ndarray) -> np.ndarray:
    """[3, P] gradients of a batch [n, 2, P]: merged, rp and es. An rp without weight takes no part, finite or not."""
    rp, es = batch.mean(axis=0)
    return np.stack([blend(np.asarray(weight_rp(batch)), rp, es), rp, es])


def log_ratio(batches: np.ndarray) -> float:
    """log10 of the variance of merged gradients over the lower of those of rp and es, of batches [b, n, 2, P].

    Variances are over the batches, means over the coordinates.
    """
    gradients = np.stack([merge(batch) for batch in batches])  # [b, 3, P]
    with np.errstate(invalid="ignore", over="ignore"):
        merged, rp, es = gradients.var(axis=0, ddof=1).mean(axis=1)
    lower = min(rp if np.isfinite(rp) else np.inf, es)
    return float(np.log10(max(merged, SMALLEST) / max(lower, SMALLEST)))


def said(found: Sequence[Merges]) -> str:
    """A sentence on all of them; none without any."""
    if not found:
        return ""
    thetas = list(dict.fromkeys(one.when for one in found))
    values = "; ".join(
        f"theta {one.when}, T = {one.window}: 10^{one.log_ratio[0]:.2f} ({one.log_ratio[1]:.2f} to "
        f"{one.log_ratio[2]:.2f}), weight of rp {np.mean(one.weights_rp):.2g}"
        for one in sorted(found, key=lambda one: (thetas.index(one.when), one.window))
    )
    below = every(False if one.log_ratio[1] > MARGIN else True if one.log_ratio[2] < MARGIN else None for one in found)
    return (
        f" Variance of the merged gradient of {found[0].batch} pairs over the lower of those of rp and es "
        f"({len(found[0].weights_rp)} batches, bootstrap), at most a factor of {10**MARGIN:.0f}: {word(below)} ({values})."
    )
