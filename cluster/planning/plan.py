"""The plan of a run: how long it takes and what it costs, from a configuration and the costs of its operations.

The window grows during a run, and with it the time of a sample. So the plan simulates a few moments of the ramp, each as
a steady state, and integrates the seconds per update over all updates.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cluster.planning.learner_failures import with_learner_failures
from cluster.planning.scenario import Costs, Durations, Failures, Outcome, Scenario
from cluster.planning.simulation import Simulation
from common.config import Config
from common.errors import UserError
from workers.curriculum import horizon, window

PARTS = 4  # of the ramp
MIN_UPDATES, MIN_CYCLES = 20, 6  # that are simulated of each moment: updates, and samples of each worker
LONGEST_SAMPLE = 5.0  # times the mean time between failures of a worker: one sample in 150 is finished
TRUNCATIONS = 2000  # that a mean window is taken over, at least
HEAD_CORES = 1  # the learner, the fleet manager and Ray's head


class Basis(NamedTuple):
    """What a plan rests on."""

    step_seconds: float  # of one inner step of one antithetic pair, mean over the samples of a mixture
    costs: Costs
    failures: Failures = Failures()
    cores_per_node: int = 32  # decides how many aggregators there are, if any
    by_family: tuple[float, ...] = ()  # seconds of a step in each family of a mixture; empty: `step_seconds` in all


class Moment(NamedTuple):
    """The run at one version."""

    version: int
    window: float  # inner steps of a truncation, nominal
    sample_seconds: float  # mean over samples
    outcome: Outcome
    most_workers: int  # beyond which the learner is the bottleneck
    learner_failure_seconds: float  # that one failure of the learner costs; 0 where none is assumed


class Plan(NamedTuple):
    workers: int
    batch: int  # samples of one update
    updates: int  # until the run ends, by outer.updates or by outer.inner_steps
    capacity: float  # samples per second that the learner can take
    moments: tuple[Moment, ...]
    hours: float
    core_hours: float

    @property
    def core_seconds_per_update(self) -> float:
        return 3600.0 * self.core_hours / self.updates


def make_plan(config: Config, basis: Basis, seed: int = 0) -> Plan:
    """The plan of a run. Raises UserError when failures are so frequent that it would not advance."""
    config = replace(config, outer=replace(config.outer, updates=updates_of(config)))
    costs, batch = basis.costs, config.outer.batch_samples
    capacity = 1.0 / (costs.exchange + costs.update / batch)
    moments = tuple(_moment(config, basis, version, seed) for version in _versions(config))
    seconds = _integral([(m.version, m.outcome.seconds_per_update) for m in moments], config.outer.updates)
    hours = seconds / 3600.0
    cores = config.workers.count + HEAD_CORES
    return Plan(config.workers.count, batch, config.outer.updates, capacity, moments, hours, cores * hours)


def updates_of(config: Config) -> int:
    """Outer updates of the run: until `outer.inner_steps` are reached, if that is before `outer.updates`."""
    outer = config.outer
    if not outer.inner_steps:
        return outer.updates
    points = [(version, _steps_of_update(config, version)) for version in _versions(config)]
    return bisect_left(range(outer.updates), True, key=lambda end: _integral(points, end) >= outer.inner_steps)


def _steps_of_update(config: Config, version: int) -> float:
    """Mean inner steps of a batch, over both unrolls of each pair, as the learner counts them."""
    mean = sum(member.weight * _mean_window(member.config, version) for member in config.members)
    unrolls = config.estimator.pairs * (2 if config.estimator.sigma > 0 else 1)  # without noise a pair is one unroll
    return config.outer.batch_samples * unrolls * mean


def _mean_window(config: Config, version: int) -> float:
    """Mean over the truncations of whole inner problems, of which the last is shorter."""
    source, steps, truncations = random.Random(0), 0, 0
    while truncations < TRUNCATIONS:
        left = _length(config, source)
        while left > 0:
            taken = window(config.curriculum, version, source.random(), left)
            left, steps, truncations = left - taken, steps + taken, truncations + 1
    return steps / truncations


def _versions(config: Config) -> list[int]:
    """Moments from the start of the ramp to its end, or to that of the run."""
    last = min(config.curriculum.updates, config.outer.updates)
    if config.curriculum.start == config.curriculum.end:
        last = 0
    return sorted({round(last * part / PARTS) for part in range(PARTS + 1)})


def _integral(points: list[tuple[int, float]], end: int) -> float:
    """From 0 to `end`, of a quantity that is linear between points, of which the first is at 0, and then constant."""
    last = float(np.interp(end, [version for version, _ in points], [value for _, value in points]))
    inside = [*(point for point in points if point[0] < end), (end, last)]
    return sum((b - a) * (value_a + value_b) / 2 for (a, value_a), (b, value_b) in pairwise(inside))


def _moment(config: Config, basis: Basis, version: int, seed: int) -> Moment:
    workers, batch = config.workers.count, config.outer.batch_samples
    draw = durations(config, version, basis.by_family or basis.step_seconds)
    aggregators = aggregators_of(config, basis.cores_per_node)
    scenario = Scenario(
        workers,
        batch,
        draw,
        basis.costs,
        basis.failures,
        aggregators,
        max(config.workers.aggregate, 1),
        max_staleness=config.outer.max_staleness,
    )
    several = draw(random.Random(seed))
    mean = sum(next(several) for _ in range(2000)) / 2000
    _check_lifetime(mean, basis.failures.worker_mtbf)
    calm = scenario._replace(failures=basis.failures._replace(learner_mtbf=math.inf))
    outcome = Simulation(calm, seed).run(max(MIN_UPDATES * batch, MIN_CYCLES * workers), 2 * workers + batch)
    lost = 0.0
    if basis.failures.learner_mtbf < math.inf:
        outcome, lost = with_learner_failures(scenario, outcome, seed)
    nominal = window(config.curriculum, version, 0.5, max(task.longest for task in config.tasks))
    most = int(mean / (basis.costs.exchange + basis.costs.update / batch))
    return Moment(version, nominal, mean, outcome, most, lost)


def _check_lifetime(sample_seconds: float, worker_mtbf: float) -> None:
    """Raises UserError when workers would hardly ever live until the end of a sample: the simulation would not end."""
    if sample_seconds > LONGEST_SAMPLE * worker_mtbf:
        raise UserError(
            f"a worker that fails every {worker_mtbf:,.4g} s finishes hardly any sample, because one takes "
            f"{sample_seconds:,.4g} s here: give a longer --worker-mtbf, or a smaller curriculum.end"
        )


def aggregators_of(config: Config, cores_per_node: int) -> int:
    """One per node, if the configuration uses them."""
    return -(-config.workers.count // cores_per_node) if config.workers.aggregate else 0


def durations(config: Config, version: int, step_seconds: float | Sequence[float]) -> Durations:
    """Samples of trajectories in steady state: each in a phase of its own, the last truncation of a problem shorter.

    Args:
      step_seconds: of an inner step of a pair; a sequence: in each family of a mixture.
    """
    members = config.members
    seconds = [step_seconds] * len(members) if isinstance(step_seconds, float) else list(step_seconds)
    weights = [member.weight for member in members]

    def draw(source: random.Random) -> Iterator[float]:
        families = [_steps(member.config, version, source) for member in members]
        for family in families:
            next(family)  # the phases of its trajectories
        while True:
            chosen = source.choices(range(len(members)), weights)[0] if len(members) > 1 else 0
            yield next(families[chosen]) * seconds[chosen]

    return draw


def _steps(config: Config, version: int, source: random.Random) -> Iterator[int]:
    """Inner steps of the samples of one family, after a zero."""
    left = [source.randint(1, _length(config, source)) for _ in range(config.estimator.pairs)]
    yield 0
    while True:
        steps = 0
        for slot, remaining in enumerate(left):
            taken = window(config.curriculum, version, source.random(), remaining)
            left[slot] = remaining - taken or _length(config, source)
            steps += taken
        yield steps


def _length(config: Config, source: random.Random) -> int:
    """Steps of a new inner problem."""
    fixed = config.task.shortest == config.task.longest
    return config.task.longest if fixed else horizon(config.task, source.random())
