"""Equation 1 of the paper, for the merge of the learner and for the figures that merge estimates of their own.

weight_rp = var_es / (var_rp + var_es),  merged = weight_rp * rp + (1 - weight_rp) * es
"""

import numpy as np

FLOOR = 1e-8  # of a sample variance (the authors' release)


def inverse_variance(var_rp: np.ndarray, var_es: np.ndarray) -> np.ndarray:
    """Weight of rp for variances in 0 .. inf: an infinite one has weight 0; if both are infinite, es has weight 1."""
    with np.errstate(over="ignore"):
        total = np.where(np.isinf(var_rp) | np.isinf(var_es), 1.0, var_rp + var_es)
    weight = np.where(np.isinf(var_es), 1.0, var_es / total)
    return np.where(np.isinf(var_rp), 0.0, weight)


def totals(variances: np.ndarray, segments: np.ndarray, merge: str) -> np.ndarray:
    """Total variance of each tensor, or of all coordinates, assigned to each of its coordinates [P].

    One infinite variance makes that of its whole tensor infinite: if rp explodes in one coordinate, its neighbours are
    not trusted either.

    Args:
      variances: [P].
      segments: [P] int, which tensor each coordinate belongs to.
      merge: as `estimator.merge`: "coordinate", "tensor", "scalar", or "family", which is "scalar" within a family.
    """
    if merge == "coordinate":
        return variances
    groups = segments if merge == "tensor" else np.zeros(len(variances), int)
    summed: np.ndarray = np.bincount(groups, variances)[groups]
    return summed


def blend(weight: np.ndarray, rp: np.ndarray, es: np.ndarray) -> np.ndarray:
    """weight * rp + (1 - weight) * es, where a weight of 0 removes even inf and NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        blended: np.ndarray = np.where(weight > 0, weight * rp, 0.0) + (1 - weight) * es
    return blended
