"""A discrete-event simulation of workers, network, learner and failures. Pure Python; the same seed gives the same outcome.

Every worker is a loop: compute a sample, send it, wait for the reply. The learner is one server that takes requests in the
order of their arrival; the exchange that fills a batch also updates. With aggregators, the workers of a node send to a
server of their own, which forwards groups of samples of one version (`learner.aggregator`). All times are in seconds.

Not modelled: bandwidth (a payload occupies a 1 Gbit/s link for 0.3 ms), whole nodes that fail, the start of a run.
"""

import heapq
import itertools
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

from cluster.planning.scenario import Outcome, Scenario

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 15.0  # pauses of cluster.actors.exchange_client
PAST = 10  # samples since which the workers have begun


class _Sample(NamedTuple):
    version: int  # of the theta it was computed with
    seconds: float  # it took


class _Worker:
    """A worker process with a request on its way."""

    def __init__(self, durations: Iterator[float], aggregator: "_Aggregator | None"):
        self.durations, self.aggregator = durations, aggregator
        self.version = 0
        self.sample: _Sample | None = None  # of the request; None: it only asks for theta
        self.sent = 0.0
        self.began = 0.0  # when it had its last reply


class _Aggregator:
    def __init__(self) -> None:
        self.free = 0.0  # when its queue is empty
        self.version = 0  # the newest it knows
        self.held: list[_Sample] = []


class _Request(NamedTuple):
    """An exchange that arrives at the learner."""

    samples: tuple[_Sample, ...]
    worker: _Worker | None  # who waits for the reply; None: nobody
    attempt: int = 0


class _Reply(NamedTuple):
    """The moment at which an aggregator replies to a worker, and the version that it has heard of by then."""

    worker: _Worker
    version: int


class _Tally:
    """Sums over the measured part."""

    def __init__(self) -> None:
        self.exchanges = self.arrived = self.rejected = self.applied = self.updates = self.learner_failures = 0
        self.staleness = self.useful = self.spent = self.busy = 0.0
        self.waits: list[float] = []


class Simulation:
    """A simulated run."""

    def __init__(self, scenario: Scenario, seed: int = 0):
        self._scenario, self._random = scenario, random.Random(seed)
        self._events: list[tuple[float, int, _Worker | _Request | _Reply]] = []  # by arrival
        self._count = 0  # of events so far: orders simultaneous ones
        self._now = 0.0
        self._version, self._held = 0, list[_Sample]()
        self._free = 0.0  # when the learner's queue is empty
        self._failed_at = self._down_until = 0.0
        self._failure = self._draw(scenario.failures.learner_mtbf)
        self._tally = _Tally()
        aggregators = [_Aggregator() for _ in range(scenario.aggregators)]
        past = sum(itertools.islice(scenario.durations(self._random), PAST))
        for number in range(scenario.workers):
            aggregator = aggregators[number % len(aggregators)] if aggregators else None
            worker = _Worker(scenario.durations(self._random), aggregator)
            arrival, seconds = self._under_way(worker.durations, past)
            worker.sample, worker.began = _Sample(0, seconds), arrival - seconds
            self._send(worker, arrival)

    def run(self, samples: int, warm_up: int) -> Outcome:
        """Simulates `warm_up` applied samples, then `samples` that are measured."""
        self._advance(warm_up)
        began, self._tally = self._now, _Tally()
        self._advance(samples)
        tally, seconds = self._tally, self._now - began
        waits = sorted(tally.waits)
        return Outcome(
            seconds=seconds,
            updates=tally.updates,
            samples_per_second=tally.applied / seconds,
            staleness=tally.staleness / tally.applied,
            exchange_50=waits[len(waits) // 2],
            exchange_99=waits[int(0.99 * (len(waits) - 1))],
            learner_waits=max(0.0, 1.0 - tally.busy / seconds),
            goodput=tally.useful / tally.spent,
            rejected=tally.rejected / tally.arrived,
            group=tally.arrived / tally.exchanges,
            learner_failures=tally.learner_failures,
        )

    def _advance(self, samples: int) -> None:
        while self._tally.applied < samples:
            self._now, _, event = heapq.heappop(self._events)
            if isinstance(event, _Request):
                self._at_learner(event)
            elif isinstance(event, _Worker):
                self._at_aggregator(event)
            else:
                self._at_reply(event)

    def _under_way(self, durations: Iterator[float], past: float) -> tuple[float, float]:
        """When the sample ends that a worker computes at the start, and how long it takes in all.

        Workers have begun independently, at random moments of the `past`: else their rate would oscillate, undamped where all
        inner problems take equally long.
        """
        elapsed, seconds = -past * self._random.random(), 0.0
        while elapsed <= 0.0:
            seconds = next(durations)
            elapsed += seconds
        return elapsed, seconds

    def _push(self, time: float, event: _Worker | _Request | _Reply) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, event))

    def _draw(self, mtbf: float) -> float:
        return self._random.expovariate(1.0 / mtbf) if mtbf < math.inf else math.inf

    def _draw_update(self) -> float:
        mean, deviation = self._scenario.costs.update, self._scenario.costs.update_deviation
        return self._random.gammavariate((mean / deviation) ** 2, deviation**2 / mean) if deviation and mean else mean

    def _send(self, worker: _Worker, time: float) -> None:
        worker.sent = time
        samples = () if worker.sample is None else (worker.sample,)
        self._push(time + self._scenario.costs.latency, worker if worker.aggregator else _Request(samples, worker))

    def _answer(self, worker: _Worker, time: float, version: int) -> None:
        """The worker has its reply at `time`, computes its next sample and sends it, unless it fails meanwhile."""
        if worker.sample is not None:
            self._tally.waits.append(time - worker.sent)
        self._tally.spent += time - worker.began
        worker.began = time
        worker.version = version
        seconds = next(worker.durations)
        failures = self._scenario.failures
        lifetime = self._draw(failures.worker_mtbf)
        if lifetime >= seconds:
            worker.sample = _Sample(version, seconds)
            self._send(worker, time + seconds)
        else:
            worker.sample, worker.durations = None, self._scenario.durations(self._random)
            self._send(worker, time + lifetime + failures.worker_restart)

    def _at_aggregator(self, worker: _Worker) -> None:
        """Holds the worker's sample. Those of another version, and a full group, leave for the learner."""
        aggregator, costs = worker.aggregator, self._scenario.costs
        assert aggregator is not None
        finish = max(self._now, self._free if self._scenario.one_core else aggregator.free) + costs.aggregate
        aggregator.free = finish
        if self._scenario.one_core:
            self._free = finish
            self._tally.busy += costs.aggregate
        groups: list[tuple[_Sample, ...]] = []
        if worker.sample is None:
            groups.append(())
        else:
            if aggregator.held and aggregator.held[0].version != worker.sample.version:
                groups.append(tuple(aggregator.held))
                aggregator.held = []
            aggregator.held.append(worker.sample)
            if len(aggregator.held) >= self._scenario.group:
                groups.append(tuple(aggregator.held))
                aggregator.held = []
        for group in groups:
            waiting = worker if group is groups[-1] else None
            self._push(finish + costs.latency, _Request(group, waiting))
        if not groups:
            self._push(finish, _Reply(worker, aggregator.version))

    def _at_reply(self, reply: _Reply) -> None:
        aggregator = reply.worker.aggregator
        assert aggregator is not None
        aggregator.version = max(aggregator.version, reply.version)
        self._answer(reply.worker, self._now + self._scenario.costs.latency, aggregator.version)

    def _at_learner(self, request: _Request) -> None:
        """Serves a request. While the learner is down, or when it fails first, the request is sent again after a pause."""
        finish = self._serve(request.samples)
        if finish is None:
            pause = min(RETRY_SECONDS * 2.0**request.attempt, LONGEST_RETRY_SECONDS) * self._random.uniform(0.5, 1.0)
            self._push(max(self._now, self._failed_at) + pause, request._replace(attempt=request.attempt + 1))
            return
        worker, arrival = request.worker, finish + self._scenario.costs.latency
        if worker is not None and worker.aggregator is not None:
            self._push(arrival, _Reply(worker, self._version))
        elif worker is not None:
            self._answer(worker, arrival, self._version)

    def _serve(self, samples: tuple[_Sample, ...]) -> float | None:
        """The time at which the learner replies; None if it does not."""
        limit, costs, tally = self._scenario.max_staleness, self._scenario.costs, self._tally
        if not self._is_up():
            return None
        fresh = [s for s in samples if limit < 0 or self._version - s.version <= limit]
        fills = bool(fresh) and len(self._held) + len(fresh) >= self._scenario.batch
        service = costs.exchange + (self._draw_update() if fills else 0.0)
        self._free = max(self._now, self._free) + service
        tally.busy += service
        tally.exchanges += bool(samples)
        tally.arrived += len(samples)
        tally.rejected += len(samples) - len(fresh)
        self._held += fresh
        if fills:
            self._update()
        return self._free

    def _update(self) -> None:
        tally = self._tally
        tally.applied += len(self._held)
        tally.updates += 1
        tally.staleness += sum(self._version - s.version for s in self._held)
        tally.useful += sum(s.seconds for s in self._held)
        self._held = []
        self._version += 1

    def _is_up(self) -> bool:
        """Whether the learner lives until it has served the request that has just arrived. A failure loses the batch."""
        while (
            self._down_until <= self._now
            and self._failure <= max(self._now, self._free) + self._scenario.costs.exchange
        ):
            self._failed_at = self._failure
            self._free = self._down_until = self._failed_at + self._scenario.failures.learner_restart
            self._failure = self._down_until + self._draw(self._scenario.failures.learner_mtbf)
            self._held = []
            self._tally.learner_failures += 1
        return self._down_until <= self._now
