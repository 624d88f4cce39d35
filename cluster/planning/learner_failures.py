"""What failures of the learner cost, however rare: one failure is simulated often, and its cost scaled.

A run of days that loses its learner once a day cannot be simulated sample by sample. So the learner of a steady state fails
every few batches; the time that a failure costs there, its restart, the pauses of the workers' requests and the batch it
was collecting, is the same where failures are rare.
"""

import math

from cluster.planning.scenario import Outcome, Scenario
from cluster.planning.simulation import Simulation
from common.errors import UserError

BATCHES, RESTARTS = 10, 5  # a simulated learner that fails often lives at least so many batches and times to restart
FAILURES, CYCLES = 40, 10  # failures that are simulated, in at least so many samples of each worker
MOST_SAMPLES = 500_000  # a few seconds of simulation: less than FAILURES where a learner takes thousands per second


def with_learner_failures(scenario: Scenario, calm: Outcome, seed: int = 0) -> tuple[Outcome, float]:
    """The outcome of a steady state whose learner fails, and the seconds that one failure costs.

    Args:
      scenario: the steady state; its `failures.learner_mtbf` is finite.
      calm: its outcome without failures of the learner.

    Raises UserError when the learner would hardly ever live until it has collected a batch.
    """
    mtbf, restart = scenario.failures.learner_mtbf, scenario.failures.learner_restart
    batch_seconds = calm.seconds_per_update
    if mtbf < batch_seconds:
        raise UserError(
            f"a learner that fails every {mtbf:,.4g} s loses most batches, because one takes {batch_seconds:,.4g} s here: "
            "give a longer --learner-mtbf, more workers, or a smaller outer.batch_samples"
        )
    frequent = max(BATCHES * batch_seconds, RESTARTS * restart)
    shorter = scenario._replace(failures=scenario.failures._replace(learner_mtbf=min(mtbf, frequent)))
    wanted = max(FAILURES * shorter.failures.learner_mtbf * calm.samples_per_second, CYCLES * scenario.workers)
    samples, warm_up = min(int(wanted), MOST_SAMPLES), 2 * scenario.workers + scenario.batch
    failing = Simulation(shorter, seed).run(samples, warm_up)
    whole = shorter._replace(failures=shorter.failures._replace(learner_mtbf=math.inf))
    reference = Simulation(whole, seed).run(samples, warm_up)  # the same samples, whose chance both runs share
    work = failing.samples_per_second * failing.seconds / reference.samples_per_second
    each = max(failing.seconds - work, 0.0) / max(failing.learner_failures, 1)
    return (failing if mtbf <= frequent else _slowed(calm, 1.0 + each / mtbf)), each


def _slowed(calm: Outcome, factor: float) -> Outcome:
    """The same work in a time longer by `factor`."""
    return calm._replace(
        seconds=factor * calm.seconds,
        samples_per_second=calm.samples_per_second / factor,
        learner_waits=1.0 - (1.0 - calm.learner_waits) / factor,
        goodput=calm.goodput / factor,
    )
