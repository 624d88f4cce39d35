"""An inner step of the families of tasks in the unroll engine over one in a Python loop, each at the sizes of its preset."""

import optax

from common.configfile import load
from common.task import open_task
from workers.bench import naive
from workers.bench.figure import Measured, ratio
from workers.bench.gradients import adam
from workers.bench.problems import subject

STEPS = 50


def residual(rounds: int) -> Measured:
    return against_loop("residual", rounds)


def autoencoder(rounds: int) -> Measured:
    return against_loop("autoencoder", rounds)


def recurrent(rounds: int) -> Measured:
    return against_loop("recurrent", rounds)


def transformer(rounds: int) -> Measured:
    return against_loop("transformer", rounds)


def against_loop(preset: str, rounds: int, steps: int = STEPS) -> Measured:
    """Seconds per inner step (batch, gradient, Adam, loss) of the unroll over those of a jitted step in a Python loop."""
    task = open_task(load(preset)).family
    ours = subject(task, adam())
    reference = naive.looped(task, optax.adam(1e-3), ours.problem, steps)
    return ratio(lambda: ours.forward(steps), lambda: reference(ours.state.w), rounds)
