"""The inner gradient relative to the hardware, and an inner step relative to straightforward implementations."""

from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from common.networks import conv, winograd
from common.networks.conv import ConvSpec
from common.optimizer import Family
from workers.bench import naive
from workers.bench.figure import Measured, cpu, divided, ratio
from workers.bench.problems import PAPER, QUICKSTART, Case, learned, problem_of, subject
from workers.evaluation import timing

PRODUCTS = (256, 512, 1024)  # sizes of square products; the fastest one is the machine's limit
GRADIENT_SECONDS = 0.2  # approximate duration of one timed loop of gradients on a slow core


def operations(spec: ConvSpec, batch: int) -> int:
    """Operations of one gradient: three products per convolution, two for the first (images need no gradient)."""
    (h, w, channels), total = spec.image_shape, 0
    for i, (units, stride) in enumerate(zip(spec.units, spec.strides)):
        h, w = -(-h // stride), -(-w // stride)
        total += 2 * h * w * 9 * channels * units * (2 if i == 0 else 3)
        channels = units
    return total * batch


def spec_of(case: Case) -> ConvSpec:
    return ConvSpec(case.data.image_shape, case.task.units, case.task.strides, case.task.classes)


def paper(rounds: int) -> Measured:
    return of_the_best_product(PAPER, rounds)


def quickstart(rounds: int) -> Measured:
    return of_the_best_product(QUICKSTART, rounds)


def of_the_best_product(case: Case, rounds: int) -> Measured:
    """Operations per second of the gradient inside a loop over those of the best matrix product."""
    work = operations(spec_of(case), case.task.batch_size)
    steps = max(2, int(GRADIENT_SECONDS * 5e10 / work))
    cases = {str(n): square_product(n) for n in PRODUCTS} | {"gradient": gradients(case, steps)}
    seconds = timing.interleaved(cases, rounds, cpu)
    best = [max(product_operations(n) / seconds[str(n)][r] for n in PRODUCTS) for r in range(rounds)]
    rates = [steps * work / s for s in seconds["gradient"]]
    details = {"gradient_gflops": float(np.median(rates)) / 1e9, "product_gflops": float(np.median(best)) / 1e9}
    details["milliseconds"] = 1e3 * float(np.median(seconds["gradient"])) / steps
    return Measured(divided(rates, best), details)


def product_operations(n: int) -> int:
    """Operations of one timed case: about 4e9 in all repetitions, long against the resolution of the clock."""
    return 2 * n**3 * max(1, 2 * 1024**3 // n**3)


def square_product(n: int) -> Callable[[], jax.Array]:
    a = jax.random.normal(jax.random.key(0), (n, n)) / np.sqrt(n)
    product = jax.jit(lambda a, x: jax.lax.fori_loop(0, product_operations(n) // (2 * n**3), lambda _, x: a @ x, x))
    return lambda: product(a, a).block_until_ready()


def gradients(case: Case, steps: int) -> Callable[[], jax.Array]:
    """`steps` gradient steps on one batch in a loop."""
    spec, task = spec_of(case), case.family()
    problem = problem_of(task)
    images, labels = task.batch(problem.data, jax.random.key(3), "train")
    w = conv.init(spec, jax.random.key(2))

    def body(_: int, w: conv.Weights) -> conv.Weights:
        gradient = jax.grad(conv.loss, argnums=1)(spec, w, images, labels)
        return jax.tree.map(lambda w, g: w - 0.01 * g, w, gradient)

    loop = jax.jit(lambda w, n: jax.lax.fori_loop(0, n, body, w))
    return lambda: jax.block_until_ready(loop(w, steps))


def against_direct(rounds: int, case: Case = PAPER, steps: int = 3) -> Measured:
    """An inner gradient with nine taps in every layer over ours."""
    return ratio(direct_gradients(case, steps), gradients(case, steps), rounds)


def direct_gradients(case: Case, steps: int) -> Callable[[], jax.Array]:
    """`gradients` with nine taps in every layer."""
    with mock.patch.object(winograd, "suits", lambda *_: False):
        loop = gradients(case, steps)
        loop()  # traces it
    return loop


def adam() -> Family:
    return Family(lambda key: jnp.zeros(1), lambda theta: optax.adam(1e-3), ((1,),))


def against_loop(rounds: int, case: Case = PAPER, steps: int = 5) -> Measured:
    """Seconds per inner step (batch, gradient, Adam, loss) of a Python loop with XLA's convolution over ours."""
    task = case.family()
    ours = subject(task, adam())
    reference = naive.looped(
        naive.naive_task(task, case.task, case.data.image_shape), optax.adam(1e-3), ours.problem, steps
    )
    return ratio(lambda: reference(ours.state.w), lambda: ours.forward(steps), rounds)


def learned_against_adam(rounds: int, case: Case = PAPER, steps: int = 4) -> Measured:
    """An inner step with the learned optimizer over one with optax.adam."""
    task = case.family()
    learned_step, adam_step = subject(task, learned()), subject(task, adam())
    return ratio(lambda: learned_step.forward(steps), lambda: adam_step.forward(steps), rounds)


def learned_against_adam_quickstart(rounds: int) -> Measured:
    return learned_against_adam(rounds, QUICKSTART, 100)
