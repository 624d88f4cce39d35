"""What a simulation of workers and learner starts from, and what it finds. All times are in seconds."""

import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

Durations = Callable[[random.Random], Iterator[float]]  # seconds of the successive samples of one worker


class Costs(NamedTuple):
    """Seconds of one operation."""

    exchange: float  # the learner's, per exchange, without the update
    update: float  # the learner's, per outer update: merge, step, checkpoint
    latency: float = 0.0005  # of the network, one way
    aggregate: float = 0.0005  # an aggregator's, per exchange
    update_deviation: float = 0.0  # standard deviation of `update`: storage and processors do not always take as long


class Failures(NamedTuple):
    """Means of the exponential times between failures, and the times to recover (measured: docs/faults.md)."""

    worker_mtbf: float = math.inf
    worker_restart: float = 10.0
    learner_mtbf: float = math.inf
    learner_restart: float = 4.0


class Scenario(NamedTuple):
    """One steady state of a run."""

    workers: int
    batch: int  # samples of one update
    durations: Durations
    costs: Costs
    failures: Failures = Failures()
    aggregators: int = 0  # each for an equal part of the workers; 0: none
    group: int = 1  # samples that an aggregator merges at most
    one_core: bool = False  # whether aggregators and learner share a core, as in one process
    max_staleness: int = -1  # samples that are staler are rejected; -1: none is


class Outcome(NamedTuple):
    """Means over the measured part of a simulation."""

    seconds: float  # simulated
    updates: int
    samples_per_second: float  # applied
    staleness: float  # versions
    exchange_50: float  # seconds from a worker's request to the reply: median
    exchange_99: float  # and 99th percentile
    learner_waits: float  # fraction of the time in which the learner has nothing to do
    goodput: float  # fraction of the workers' time that went into samples that were applied
    rejected: float  # fraction of the samples that were too stale
    group: float  # samples per exchange of the learner
    learner_failures: int

    @property
    def seconds_per_update(self) -> float:
        return self.seconds / self.updates if self.updates else math.inf
