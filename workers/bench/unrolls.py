"""The cost and the accuracy of the outer gradient."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from workers.bench.figure import Measured, ratio
from workers.bench.problems import PAPER, QUICKSTART, Case, Subject, learned, subject, widened
from workers.estimators import Perturbation, antithetic_pair
from workers.inner_step import InnerState, Problem
from workers.segment import Tape
from workers.unroll import Unroll

SIGMA = 0.1
WINDOW = 100
ERROR_STEPS = 50


class OneTape(Unroll):
    """Keeps the tape of one segment only, as if no more fitted into memory."""

    def _tapes_kept(self, state: InnerState, tape: Tape, boundaries: int) -> int:
        return 1


class Recomputing(Unroll):
    """Recomputes activations even where they fit, as the reverse pass of large networks does."""

    def _activations_kept(self, problem: Problem, state: InnerState) -> list[jax.ShapeDtypeStruct]:
        return []


def kept(rounds: int) -> Measured:
    """The quickstart's network: a step costs the same at every window whose tapes are all kept."""
    return in_forward_steps(quickstart(), WINDOW, rounds)


def recomputed(rounds: int) -> Measured:
    """The quickstart's network, one segment of five keeps its tape, as if no more fitted into memory."""
    return in_forward_steps(learned_on(QUICKSTART, OneTape), 250, rounds)


def paper_kept(rounds: int) -> Measured:
    """The paper's network, whose activations do not fit at the usual length of a segment."""
    return in_forward_steps(learned_on(PAPER, Recomputing, segment=5), 5, rounds)


def against_recomputing(rounds: int, window: int = WINDOW) -> Measured:
    """The outer gradient with activations recomputed over that with activations kept, quickstart's network."""
    ours, reference = quickstart(), quickstart(Recomputing)
    return ratio(lambda: reference.backward(window), lambda: ours.backward(window), rounds)


@cache
def quickstart(make: type[Unroll] = Unroll) -> Subject:
    """The quickstart's network with the learned optimizer: several figures of one process trace it once."""
    return learned_on(QUICKSTART, make)


def learned_on(case: Case, make: type[Unroll] = Unroll, segment: int = 50) -> Subject:
    return subject(case.family(), learned(), make, segment)


def in_forward_steps(unroll: Subject, window: int, rounds: int) -> Measured:
    """Losses and outer gradient of a window over its losses only."""
    return ratio(lambda: unroll.backward(window), lambda: unroll.forward(window), rounds)


def pair(rounds: int, window: int = WINDOW) -> Measured:
    """Both estimators of one antithetic pair over one forward unroll."""
    one = quickstart()
    both = partial(antithetic_pair, one.unroll, perturbation(one), one.truncation(window), with_rp=True)
    return ratio(both, lambda: one.forward(window), rounds)


def perturbation(one: Subject) -> Perturbation:
    noise = np.random.default_rng(0).standard_normal(one.theta.size)
    return Perturbation(np.asarray(one.theta), noise, SIGMA)


def rounding(rounds: int, steps: int = ERROR_STEPS) -> Measured:
    """Error of the float32 outer gradient in percent: its distance from the float64 one over the norm of the latter.

    The details have the median error of the gradient whose activations are recomputed.
    """
    ours, reference = quickstart(), quickstart(Recomputing)
    errors: list[float] = []
    recomputed: list[float] = []
    for seed in range(rounds):
        theta = learned().init(jax.random.key(seed))
        with jax.enable_x64(True):
            wide = reference._replace(theta=theta.astype(jnp.float64), state=widened(ours.state)).backward(steps)
        for one, found in ((ours, errors), (reference, recomputed)):
            single = one._replace(theta=theta).backward(steps)
            found.append(100 * float(np.linalg.norm(single - wide) / np.linalg.norm(wide)))
    return Measured(errors, {"window": steps, "recomputed": float(np.median(recomputed))})
