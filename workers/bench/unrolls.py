"""The cost of the outer gradient in forward steps, and the small parts of an inner step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workers.bench import naive
from workers.bench.figure import Measured, cpu, divided, medians, ratio
from workers.bench.problems import PAPER, QUICKSTART, Case, Subject, learned, subject, widened
from workers.estimators import Perturbation, antithetic_pair
from workers.evaluation import timing
from workers.inner_step import InnerState, Problem, inner_batch
from workers.segment import Tape
from workers.unroll import Unroll

SIGMA = 0.1
ERROR_STEPS = 50
REFERENCE_STEPS = 50


class OneTape(Unroll):
    """Keeps the tape of one segment only, as if no more fitted into memory."""

    def _tapes_kept(self, state: InnerState, tape: Tape, boundaries: int) -> int:
        return 1


class Recomputing(Unroll):
    """Recomputes activations even where they fit, as the reverse pass of large networks does."""

    def _activations_kept(self, problem: Problem, state: InnerState) -> list[jax.ShapeDtypeStruct]:
        return []


def kept(rounds: int) -> Measured:
    """The quickstart's network, window 500."""
    return in_forward_steps(learned_on(QUICKSTART), 500, rounds)


def recomputed(rounds: int) -> Measured:
    """The quickstart's network, window 10,000: two thirds of the segments are recomputed."""
    return in_forward_steps(learned_on(QUICKSTART), 10_000, rounds)


def paper_kept(rounds: int) -> Measured:
    """The paper's network: a step costs the same at every window whose tapes are all kept."""
    return in_forward_steps(learned_on(PAPER), 50, rounds)


def paper_recomputed(rounds: int) -> Measured:
    """The paper's network with the proportions of window 10,000: one segment of twelve keeps its tape."""
    return in_forward_steps(learned_on(PAPER, OneTape, segment=5), 60, rounds)


def against_recomputing(rounds: int, window: int = 100) -> Measured:
    """The outer gradient with activations recomputed over that with activations kept, quickstart's network."""
    ours, reference = learned_on(QUICKSTART), learned_on(QUICKSTART, Recomputing)
    return ratio(lambda: reference.backward(window), lambda: ours.backward(window), rounds)


def learned_on(case: Case, make: type[Unroll] = Unroll, segment: int = 50) -> Subject:
    return subject(case.family(), learned(), make, segment)


def in_forward_steps(unroll: Subject, window: int, rounds: int) -> Measured:
    """Losses and outer gradient of a window over its losses only."""
    return ratio(lambda: unroll.backward(window), lambda: unroll.forward(window), rounds)


def pair(rounds: int, window: int = 500) -> Measured:
    """Both estimators of one antithetic pair over one forward unroll."""
    one = learned_on(QUICKSTART)
    both = partial(antithetic_pair, one.unroll, perturbation(one), one.truncation(window), with_rp=True)
    return ratio(both, lambda: one.forward(window), rounds)


def perturbation(one: Subject) -> Perturbation:
    noise = np.random.default_rng(0).standard_normal(one.theta.size)
    return Perturbation(np.asarray(one.theta), noise, SIGMA)


def batch_fraction(rounds: int, case: Case = PAPER, steps: int = 20, batches: int = 500) -> Measured:
    """Percent of an inner step that is spent on its batch."""
    one = learned_on(case)
    task = one.unroll.task

    @jax.jit
    def take(problem: Problem, n: int) -> Any:
        return jax.lax.fori_loop(
            0, n, lambda t, _: inner_batch(task, problem, t), inner_batch(task, problem, jnp.int32(0))
        )

    cases = {
        "batch": lambda: jax.block_until_ready(take(one.problem, batches)),
        "step": lambda: one.forward(steps),
    }
    seconds = timing.interleaved(cases, rounds, cpu)
    each = {"batch": [s / batches for s in seconds["batch"]], "step": [s / steps for s in seconds["step"]]}
    return Measured(divided(each["batch"], each["step"], factor=100), {"seconds": medians(each)})


def rounding(rounds: int, steps: int = ERROR_STEPS) -> Measured:
    """Error of the float32 outer gradient in percent: its distance from the float64 one over the norm of the latter.

    The details have the median error of the gradient whose activations are recomputed.
    """
    ours, reference = learned_on(QUICKSTART), learned_on(QUICKSTART, Recomputing)
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


def against_reverse_over_reverse(rounds: int, steps: int = REFERENCE_STEPS) -> Measured:
    """JAX's derivative of a `lax.scan` of the same network's step over ours."""
    one = learned_on(QUICKSTART)
    reference = naive.outer_gradient(one.unroll.task, learned(), one.problem, steps)
    return ratio(lambda: reference(one.theta, one.state.w), lambda: one.backward(steps), rounds)
