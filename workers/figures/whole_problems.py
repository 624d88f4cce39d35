"""Estimates of the gradient of a whole inner problem at a fixed theta, by every estimator, and what they cost.

The unit is one inner problem, advanced truncation by truncation to its end; its estimate is the sum over the truncations,
each weighted by its fraction of the problem's steps. Units are independent, and all take as many inner steps.
"""

import time
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from common import configfile
from common.config import Config
from common.inverse_variance import FLOOR, blend, inverse_variance, totals
from common.moments import of, variance
from common.optimizer import make_family
from workers.figures.figure import Settings
from workers.trajectory import Advance, Sampler
from workers.worker import Engine, make_engine

BATCH = 4  # problems that are merged with one weight
REACHES = (1, 4)
SHORT = 0.05  # of the problem: with shorter windows calls decide the cost, and reaching back is not tried
MERGES = ("scalar", "tensor", "coordinate")


class Units(NamedTuple):
    """Inner problems of one kind of trajectory."""

    rp: np.ndarray  # [n, P] of a whole problem; zero where it is skipped
    es: np.ndarray  # [n, P]
    fresh: np.ndarray  # [n, P] es of the newest draws alone
    each: tuple[list[np.ndarray], list[np.ndarray]]  # rp and es of the problem's truncations, [truncations, P] each
    seconds: float  # of this process, for a problem


class Estimates(NamedTuple):
    """Independent estimates of the gradient."""

    rows: np.ndarray  # [n, P]
    seconds: float  # for one


@lru_cache(maxsize=2)
def engine_of(settings: Settings) -> Engine:
    """One per configuration and process, so that its unrolls are compiled once."""
    return make_engine(configfile.load(settings[0], settings[1:]))


def sampler_of(settings: Settings, uid: str, window: int, **estimator: Any) -> Sampler:
    """A sampler with windows of `window` steps; its problems and draws depend on `uid`."""
    tasks, [unroll] = engine_of(settings)
    config = configfile.load(settings[0], settings[1:])
    curriculum = replace(config.curriculum, start=window, end=window, jitter=0.0, stagger=False)
    config = replace(config, curriculum=curriculum, estimator=replace(config.estimator, **estimator))
    return Sampler(config, tasks.members[0].family, unroll, uid, make_family(config.optimizer).size)


def problem(sampler: Sampler, theta: np.ndarray, number: int, *, with_rp: bool) -> list[Advance]:
    """All truncations of inner problem `number`, until its end or until it has diverged."""
    trajectory, advances = sampler.begin(0, number), list[Advance]()
    while not advances or not (advances[-1].finished or advances[-1].diverged):
        sequence = number * sampler.config.task.longest + len(advances)
        advance, trajectory = sampler.advance(trajectory, theta, 0, sequence, with_rp=with_rp)
        advances.append(advance)
    return advances


def units(sampler: Sampler, theta: np.ndarray, count: int, *, with_rp: bool = True) -> Units:
    """`count` inner problems; the first one, which compiles, is not timed."""
    config: Config = sampler.config
    truncated, zero = config.estimator.es == "truncated", np.zeros(len(theta))
    rp, es, fresh = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    seconds = list[float]()
    for number in range(1, count + 1):
        began = time.process_time()
        advances = problem(sampler, theta, number, with_rp=with_rp)
        seconds.append(time.process_time() - began)
        fractions = np.array([a.steps / config.task.longest for a in advances])[:, None]
        scale = fractions if truncated else np.ones_like(fractions)  # whole-problem estimates have it in them
        rp.append(scale * [zero if a.rp is None else a.rp for a in advances])
        es.append(scale * [zero if a.es is None else a.es for a in advances])
        fresh.append(fractions * [zero if a.pair.es is None else a.pair.es for a in advances])
    sums = [np.array([each.sum(axis=0) for each in kind]) for kind in (rp, es, fresh)]
    return Units(sums[0], sums[1], sums[2], (rp, es), float(np.mean(seconds[1:])))


def weight_rp(found: Units, which: slice, merge: str, segments: np.ndarray) -> np.ndarray:
    """Equation 1 for the truncations of some problems: weight of rp [P]. Where rp is not finite its weight is 0."""
    of_each = (variance(of(np.concatenate(each[which])), FLOOR) for each in found.each)
    var_rp, var_es = (totals(variances, segments, merge) for variances in of_each)
    return inverse_variance(var_rp, var_es)


def merged(found: Units, segments: np.ndarray) -> dict[str, Estimates]:
    """The paper's merge in each granularity, and with cross-fitted weights: an estimate is BATCH problems."""
    rows: dict[str, list[np.ndarray]] = {f"merged {merge}": [] for merge in MERGES}
    rows |= {"merged cross-fitted": (crossed := list[np.ndarray]())}

    def of_part(own: slice, other: slice, merge: str) -> np.ndarray:
        weight = weight_rp(found, other, merge, segments)
        return blend(weight, found.rp[own].mean(axis=0), found.es[own].mean(axis=0))

    for first in range(0, len(found.rp) - BATCH + 1, BATCH):
        batch = slice(first, first + BATCH)
        one, other = slice(first, first + BATCH, 2), slice(first + 1, first + BATCH, 2)
        for merge in MERGES:
            rows[f"merged {merge}"].append(of_part(batch, batch, merge))
        crossed.append((of_part(one, other, "scalar") + of_part(other, one, "scalar")) / 2)
    return {name: Estimates(np.array(kept), BATCH * found.seconds) for name, kept in rows.items()}


def persistent(found: Units, segments: np.ndarray) -> np.ndarray:
    """PES with rp in the place of its newest draws, [n, P]: each half of the units with the weight of the other half."""
    rows = np.empty_like(found.rp)
    for own, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        weight = weight_rp(found, other, "scalar", segments)
        rows[own] = blend(weight, found.rp[own], found.es[own])
    return rows


def shrunk(rows: np.ndarray, found: Units, batch: float, segments: np.ndarray) -> np.ndarray:
    """`persistent` with the older draws' part times alpha in 0 .. 1, by tensor.

    Positive-part James-Stein: alpha is the squared mean of that part over the same plus the variance of its mean over
    `batch` problems, both estimated from the other half of the units.
    """
    older, shrunken = found.es - found.fresh, rows.copy()
    for own, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        part = older[other]
        noise = np.bincount(segments, part.var(axis=0, ddof=1))
        signal = np.maximum(np.bincount(segments, part.mean(axis=0) ** 2) - noise / len(part), 0.0)
        alpha = np.divide(signal, signal + noise / batch, out=np.zeros_like(signal), where=signal > 0)
        shrunken[own] -= (1 - alpha[segments]) * older[own]
    return shrunken


def every_estimator(settings: Settings, window: int, theta: np.ndarray, count: int) -> dict[str, Estimates]:
    """Estimates by name, with windows of this length, of the same problems and draws, so that they can be paired."""
    uid = f"window {window}"
    length = configfile.load(settings[0], settings[1:]).task.longest
    segments = make_family(configfile.load(settings[0], settings[1:]).optimizer).segments
    truncated = units(sampler_of(settings, uid, window), theta, count)
    reuse = sampler_of(settings, uid, window, use="es", es="noise_reuse")
    nres = units(reuse, theta, count, with_rp=False)
    found = {"rp": Estimates(truncated.rp, truncated.seconds), "es": Estimates(truncated.es, nres.seconds)}
    found |= merged(truncated, segments)
    if window == length:
        return found
    found |= {"NRES": Estimates(nres.es, nres.seconds)}
    for reach in (0, *(reach for reach in REACHES if SHORT <= window / length < 1 / reach)):
        sampler = sampler_of(settings, uid, window, es="persistent", reach=reach)
        pes = units(sampler, theta, count)
        rows = persistent(pes, segments)
        if reach:
            found[f"PES + rp, reach {reach}"] = Estimates(rows, pes.seconds)
            continue
        found |= {"PES": Estimates(pes.es, nres.seconds), "PES + rp": Estimates(rows, pes.seconds)}
        batch = BATCH * truncated.seconds / pes.seconds
        found |= {"PES + rp, shrunk": Estimates(shrunk(rows, pes, batch, segments), pes.seconds)}
    return found
