"""Figure 4: the variance of rp grows from far below to far above that of es (paper section 3).

Along the outer-trainings of Figure 5, and against the window at a fixed theta: before outer-training, after it, and
after it with steps three times as long (the output layer times 3), at the edge of stability. At the scale `long`, along
the merged trainings of Figure 8, and at thetas of one of them: before, halfway and after.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from common import moments, streams
from common.config import Config
from common.optimizer import make_family
from common.update_record import LEVELS
from workers.estimators import Perturbation, Truncation, antithetic_pair
from workers.evaluation.comparison import LEARNED
from workers.evaluation.jobs import UnrollJob, decode, encode
from workers.figures import ablations, fig5
from workers.figures.batches import Merges, MergesJob, said
from workers.figures.batches import perform as merged
from workers.figures.figure import (
    Job,
    Kind,
    Outcome,
    Results,
    Settings,
    Train,
    config_of,
    evaluator_of,
    input_only,
    of_kind,
    rounded,
)
from workers.figures.statistics import bootstrap, every, mean, word
from workers.unroll import OuterLoss, Unroll

CLAIM = "The variance of rp grows from far below to far above that of es, which stays as it is."
NEEDS = {"mini": ("fig5",), "long": ("fig8",), "paper": ("fig5",)}


@dataclass(frozen=True, kw_only=True)
class PairsJob(Job, figure="fig4", kind="pairs"):
    """Pairs of fresh problems at one theta and one window."""

    when: str  # which theta
    window: int
    pairs: int
    theta: str = input_only()


@dataclass(frozen=True, kw_only=True)
class Pairs(PairsJob):
    rp: Sequence[float]  # variance per coordinate: 5, 25, 50, 75 and 95 %, infinite where that many are not finite
    es: Sequence[float]
    log_ratio: tuple[float, float, float]  # value, low and high of `log_ratio`
    rp_nonfinite: float | None = None  # fraction of coordinates whose variance of rp is infinite; None: not recorded


KINDS = (Kind(PairsJob, Pairs), Kind(MergesJob, Merges))


class Scale(NamedTuple):
    windows: list[int]
    pairs: int
    merged_windows: tuple[int, ...] = ()  # at which batches are merged
    batches: int = 8


EDGE = "trained, steps x 3"
STEADY = 1.0  # of the decimal logarithm: es stays as it is if it changes by less, where rp changes by ten times as much
FINITE = (-50.0, 50.0)  # of the logarithm of a ratio, which is infinite where rp exploded, for a mean of several
SCALES = {
    "mini": Scale([5, 10, 20, 40, 80, 160, 300], 16),
    "long": Scale([10, 30, 100, 300, 1000, 3000], 16, merged_windows=(30, 300, 1000, 3000)),
    "paper": Scale([10, 50, 200, 1000, 3000, 10000], 64),
}


def jobs(scale: str, results: Results) -> list[Job]:
    """The pairs, at thetas of the best of the outer-trainings; none before it has been trained."""
    found = in_long_problems(results) if scale == "long" else in_short_problems(results)
    if found is None:
        return []
    settings, thetas = found
    chosen, batch = SCALES[scale], config_of(settings).outer.batch_samples
    listed: list[Job] = []
    for when, theta in thetas.items():
        for window in chosen.windows:
            label = f"{when}-T{window}".replace(" ", "")
            job = PairsJob(label=label, settings=settings, when=when, window=window, pairs=chosen.pairs, theta=theta)
            listed.append(job.named())
        for window in chosen.merged_windows:
            label, pairs = f"merged-{when}-T{window}".replace(" ", ""), chosen.batches * batch
            merge = MergesJob(
                label=label, settings=settings, when=when, window=window, pairs=pairs, batch=batch, theta=theta
            )
            listed.append(merge.named())
    return listed


Thetas = dict[str, str]  # by what they are called


def in_short_problems(results: Results) -> tuple[Settings, Thetas] | None:
    """The best training of Figure 5: before it, after it, and with longer steps, as a longer training takes them."""
    trained = fig5.best_training(results, "train")
    if trained is None:
        return None
    start, end = (trained.thetas[choose(trained.thetas, key=int)] for choose in (min, max))
    return trained.settings, {"start": start, "trained": end, EDGE: longer_steps(end, config_of(trained.settings))}


def in_long_problems(results: Results) -> tuple[Settings, Thetas] | None:
    """The best merged training of Figure 8: its thetas as they are."""
    merged = ablations.by_variant(results).get(ablations.MERGED, [])
    if not merged:
        return None
    best = min(merged, key=ablations.score)
    return best.settings, dict(zip(("start", "half-trained", "trained"), best.thetas))


def longer_steps(theta: str, config: Config) -> str:
    """The same optimizer with both outputs times 3: theta's last two tensors are the output layer."""
    layout, numbers = make_family(config.optimizer).layout, decode(theta)
    last = sum(int(np.prod(shape)) for shape in layout[-2:])
    return encode(np.concatenate([numbers[:-last], 3 * numbers[-last:]]))


def perform(job: Job, train: Train) -> Job:
    """Variances per coordinate over pairs of fresh problems, and their ratio; or those of merged batches of pairs."""
    if isinstance(job, MergesJob):
        return merged(job, draw_pairs(job))
    assert isinstance(job, PairsJob)
    return described(job, draw_pairs(job))


def draw_pairs(job: PairsJob | MergesJob) -> np.ndarray:
    """[pairs, 2, P] rp and es of pairs of fresh problems."""
    evaluator, theta = evaluator_of(job.settings), decode(job.theta)
    unroll = unroll_of(job.settings)
    sigma, random = evaluator.config.estimator.sigma, streams.generator(streams.PAIRS, job.window)
    drawn = []
    for k in range(job.pairs):
        start = UnrollJob(LEARNED, k, theta=job.theta, outer_split="outer_train")
        problem, state, _ = evaluator.start(start)
        perturbation = Perturbation(theta, random.standard_normal(len(theta)), sigma)
        truncation = Truncation(problem, state, state, job.window)
        pair = antithetic_pair(unroll, perturbation, truncation, with_rp=True)
        assert pair.rp is not None and pair.es is not None
        drawn.append(np.stack([pair.rp, pair.es]))
    return np.stack(drawn)


@lru_cache(maxsize=1)
def unroll_of(settings: Settings) -> Unroll:
    """The unroll of the training's samples, whose outer loss has the training's own number of outer batches."""
    config, task = config_of(settings), evaluator_of(settings).task
    return Unroll(task, make_family(config.optimizer), OuterLoss.of(config.estimator), config.workers.segment)


def described(job: Job, pairs: np.ndarray) -> Pairs:
    """The result of a job with these pairs [n, 2, P] of rp and es."""
    variances = variance(pairs)
    of_rp, of_es = (rounded(moments.quantiles(of_one, np.array(LEVELS))) for of_one in variances)
    infinite = rounded(np.isinf(variances[0]).mean())
    return Pairs.of(job, rp=of_rp, es=of_es, log_ratio=rounded(bootstrap(pairs, log_ratio)), rp_nonfinite=infinite)


def variance(pairs: np.ndarray) -> np.ndarray:
    """[2, P] sample variances of pairs [n, 2, P]; infinite where a pair is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        variances = pairs.var(axis=0, ddof=1)
    return np.where(np.isfinite(variances), variances, np.inf)


def log_ratio(pairs: np.ndarray) -> float:
    """Median over coordinates of log10 (variance of rp / variance of es), of pairs [n, 2, P]."""
    rp, es = np.maximum(variance(pairs), 1e-30)
    return float(np.median(np.log10(rp / es)))


def trainings(results: Results) -> list[fig5.Training | ablations.Training]:
    """The merged outer-trainings for the train loss, of Figure 5 or of Figure 8."""
    of_fig5 = [one for one in of_kind(results, fig5.Training) if one.objective == "train"]
    return [*of_fig5, *ablations.by_variant(results).get(ablations.MERGED, [])]


def growth(training: fig5.Training | ablations.Training) -> tuple[float, float]:
    """log10 of the ratio of the median variances, rp over es: in the first and in the last tenth of a training."""
    rp, es = (np.array(band, float)[:, 1] for band in (training.var_rp, training.var_es))
    return ends(np.log10(np.maximum(rp, 1e-30) / np.maximum(es, 1e-30)))


def change_of_es(training: fig5.Training | ablations.Training) -> float:
    """log10 of the median variance of es in the last tenth of a training over that in the first."""
    begin, end = ends(np.log10(np.maximum(np.array(training.var_es, float)[:, 1], 1e-30)))
    return end - begin


def ends(values: np.ndarray) -> tuple[float, float]:
    """Medians of the first and of the last tenth of the values, without the updates that computed no rp."""
    known = values[~np.isnan(values)]
    tenth = max(1, len(known) // 10)
    return float(np.median(known[:tenth])), float(np.median(known[-tenth:]))


def ratio(pairs: Pairs) -> str:
    """The ratio of the variances with its interval, and where rp is not finite."""
    value, low, high = map(float, pairs.log_ratio)
    infinite = f", rp not finite in {pairs.rp_nonfinite:.0%} of the coordinates" if pairs.rp_nonfinite else ""
    return f"10^{value:.1f} ({low:.1f} to {high:.1f}{infinite})"


def outcome(results: Results) -> Outcome:
    along = np.array([growth(one) for one in trainings(results)])
    es = mean(np.array([change_of_es(one) for one in trainings(results)]))
    steady = es.within(STEADY)
    begin, end = mean(np.clip(-along[:, 0], *FINITE)).above(0), mean(np.clip(along[:, 1], *FINITE)).above(0)
    parts = [
        f"below that of es at the start: {word(begin)}, above it at the end: {word(end)}; along outer-training the median variance of rp goes from 10^{along[:, 0].mean():.1f} times that of es "
        f"({along[:, 0].min():.1f} to {along[:, 0].max():.1f} over {len(along)} starts) to 10^{along[:, 1].mean():.1f} times "
        f"({along[:, 1].min():.1f} to {along[:, 1].max():.1f}); the decimal logarithm of that of es "
        f"changes by {es}, by less than {STEADY:g}: {word(steady)}"
    ]
    table = {(one.when, one.window): one for one in of_kind(results, Pairs)}
    windows = sorted({window for _, window in table})
    for when in dict.fromkeys(when for when, _ in table):
        first, last = (ratio(table[when, windows[k]]) for k in (0, -1))
        parts.append(f"theta {when}: {first} times at T = {windows[0]}, {last} at T = {windows[-1]}")
    return Outcome(
        every([begin, end, steady]), f"Over coordinates: {'; '.join(parts)}.{said(of_kind(results, Merges))}"
    )
