"""Statistics over tasks: interquartile mean with a bootstrap interval, performance profile, AlgoPerf's score."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

FEWEST = 10  # tasks that an interval needs
TAU = 4.0  # where AlgoPerf's score ends (Dahl et al. 2023, section 4.3)
RESAMPLES = 2000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """An interquartile mean over tasks and its 95 % interval; None: too few tasks for one."""

    value: float
    low: float | None
    high: float | None


def interquartile_mean(values: np.ndarray, axis: int = -1) -> Any:
    """Mean of the middle half."""
    from scipy.stats import trim_mean

    return trim_mean(values, 0.25, axis=axis)


def estimate(values: np.ndarray) -> Estimate:
    """Args: values [tasks], finite."""
    value = float(interquartile_mean(values))
    if len(values) < FEWEST:
        return Estimate(value, None, None)
    if np.ptp(values) == 0:
        return Estimate(value, value, value)
    low, high = _bootstrap(values, "BCa")
    if not np.isfinite([low, high]).all():  # BCa is undefined where leaving out any one task changes nothing
        low, high = _bootstrap(values, "percentile")
    return Estimate(value, low, high)


def _bootstrap(values: np.ndarray, method: str) -> tuple[float, float]:
    import warnings

    from scipy.stats import bootstrap

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of degenerate data, which the caller handles
        interval = bootstrap(
            (values,),
            interquartile_mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(interval.low), float(interval.high)


def mean_of_logs(ratios: np.ndarray) -> float:
    """Geometric mean; 0 if any of the ratios is 0."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(ratios))))


def performance_ratios(times: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Times [tasks] by optimizer over that of the fastest of each task; infinite where an optimizer has not solved it."""
    best = np.min(list(times.values()), axis=0)
    solved = np.where(np.isfinite(best), best, 1.0)
    return {name: np.asarray(own) / solved for name, own in times.items()}


def profile(ratios: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Fraction of the tasks [n] that an optimizer with ratios [tasks] solves within tau [n] times the best time."""
    return np.asarray(np.mean(ratios[None, :] <= tau[:, None], axis=1))


def algoperf_score(ratios: np.ndarray) -> float:
    """Area under the profile from tau = 1 to 4, over 3: 1 for the fastest on every task, 0 for one that solves none."""
    return float(np.mean(np.clip((TAU - ratios) / (TAU - 1.0), 0.0, 1.0)))
