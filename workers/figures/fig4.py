"""Figure 4: the variance of rp grows from far below to far above that of es (paper section 3).

Along the outer-trainings of Figure 5, and against the window at a fixed theta: before outer-training, after it, and
after it with steps three times as long (the output layer times 3), at the edge of stability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.config import Config
from common.optimizer import make_family
from workers.estimators import Perturbation, Truncation, antithetic_pair
from workers.evaluation.comparison import LEARNED
from workers.evaluation.jobs import UnrollJob, decode, encode
from workers.figures import fig5
from workers.figures.figure import (
    Job,
    Kind,
    Outcome,
    Results,
    Train,
    config_of,
    evaluator_of,
    input_only,
    of_kind,
    rounded,
)
from workers.figures.statistics import bootstrap

CLAIM = "The variance of rp grows from far below to far above that of es, which stays as it is."
NEEDS = ("fig5",)


@dataclass(frozen=True, kw_only=True)
class PairsJob(Job, figure="fig4", kind="pairs"):
    """Pairs of fresh problems at one theta and one window."""

    when: str  # which theta
    window: int
    pairs: int
    theta: str = input_only()


@dataclass(frozen=True, kw_only=True)
class Pairs(PairsJob):
    rp: Sequence[float]  # variance per coordinate: 5, 25, 50, 75 and 95 %
    es: Sequence[float]
    log_ratio: tuple[float, float, float]  # value, low and high of `log_ratio`


KINDS = (Kind(PairsJob, Pairs),)


class Scale(NamedTuple):
    windows: list[int]
    pairs: int


EDGE = "trained, steps x 3"
SCALES = {
    "mini": Scale([5, 10, 20, 40, 80, 160, 300], 16),
    "paper": Scale([10, 50, 200, 1000, 3000, 10000], 64),
}


def jobs(scale: str, results: Results) -> list[Job]:
    trained = fig5.best_training(results, "train")
    if trained is None:
        return []
    start, end = (trained.thetas[choose(trained.thetas, key=int)] for choose in (min, max))
    thetas = {"start": start, "trained": end, EDGE: longer_steps(end, config_of(trained.settings))}
    windows, pairs = SCALES[scale]
    listed: list[Job] = []
    for when, theta in thetas.items():
        for window in windows:
            label = f"{when}-T{window}".replace(" ", "")
            job = PairsJob(label=label, settings=trained.settings, when=when, window=window, pairs=pairs, theta=theta)
            listed.append(job.named())
    return listed


def longer_steps(theta: str, config: Config) -> str:
    """The same optimizer with both outputs times 3: theta's last two tensors are the output layer."""
    layout, numbers = make_family(config.optimizer).layout, decode(theta)
    last = sum(int(np.prod(shape)) for shape in layout[-2:])
    return encode(np.concatenate([numbers[:-last], 3 * numbers[-last:]]))


def perform(job: Job, train: Train) -> Job:
    """Variances per coordinate over pairs of fresh problems, and their ratio."""
    assert isinstance(job, PairsJob)
    evaluator, theta = evaluator_of(job.settings), decode(job.theta)
    sigma, random = evaluator.config.estimator.sigma, np.random.default_rng(job.window)
    rp, es = [], []
    for k in range(job.pairs):
        start = UnrollJob(LEARNED, k, theta=job.theta, outer_split="outer_train")
        problem, state, _ = evaluator.start(start)
        perturbation = Perturbation(theta, random.standard_normal(len(theta)), sigma)
        truncation = Truncation(problem, state, state, job.window)
        pair = antithetic_pair(evaluator.unroll(LEARNED), perturbation, truncation, with_rp=True)
        assert pair.rp is not None and pair.es is not None
        rp.append(np.nan_to_num(pair.rp, nan=1e30, posinf=1e30, neginf=-1e30))
        es.append(pair.es)
    pairs = np.stack([np.stack(rp), np.stack(es)], axis=1)  # [pairs, 2, P]
    of_rp, of_es = (np.percentile(pairs[:, k].var(axis=0, ddof=1), [5, 25, 50, 75, 95]) for k in range(2))
    return Pairs.of(job, rp=rounded(of_rp), es=rounded(of_es), log_ratio=rounded(bootstrap(pairs, log_ratio)))


def log_ratio(pairs: np.ndarray) -> float:
    """Median over coordinates of log10 (variance of rp / variance of es), of pairs [n, 2, P]."""
    variances = np.maximum(pairs.var(axis=0, ddof=1), 1e-30)
    return float(np.median(np.log10(variances[0] / variances[1])))


def trainings(results: Results) -> list[fig5.Training]:
    """The outer-trainings of Figure 5 for the train loss."""
    return [one for one in of_kind(results, fig5.Training) if one.objective == "train"]


def growth(training: fig5.Training) -> tuple[float, float]:
    """log10 of the ratio of the median variances, rp over es: in the first and in the last tenth of a training."""
    rp, es = (np.array(band, float)[:, 1] for band in (training.var_rp, training.var_es))
    ratio = np.log10(np.maximum(rp, 1e-30) / np.maximum(es, 1e-30))
    tenth = max(1, len(ratio) // 10)
    return float(np.nanmedian(ratio[:tenth])), float(np.nanmedian(ratio[-tenth:]))


def outcome(results: Results) -> Outcome:
    along = np.array([growth(one) for one in trainings(results)])
    parts = [
        f"along outer-training the median variance of rp goes from 10^{along[:, 0].mean():.1f} times that of es "
        f"({along[:, 0].min():.1f} to {along[:, 0].max():.1f} over {len(along)} starts) to 10^{along[:, 1].mean():.1f} times "
        f"({along[:, 1].min():.1f} to {along[:, 1].max():.1f})"
    ]
    table = {(one.when, one.window): one.log_ratio for one in of_kind(results, Pairs)}
    windows = sorted({window for _, window in table})
    for when in dict.fromkeys(when for when, _ in table):
        first, last = (
            f"10^{v:.1f} ({low:.1f} to {high:.1f})"
            for v, low, high in (table[when, windows[0]], table[when, windows[-1]])
        )
        parts.append(f"theta {when}: {first} times at T = {windows[0]}, {last} at T = {windows[-1]}")
    holds = bool((along[:, 0] < 0).all() and (along[:, 1] > 0).all())
    return Outcome(holds, "Over coordinates: " + "; ".join(parts) + ".")
