"""The simulation against laws of queues, in regimes where these are exact or nearly so."""

import math
import random
from collections.abc import Iterator

import pytest

from cluster.planning.scenario import Costs, Failures, Outcome, Scenario
from cluster.planning.simulation import Simulation

COSTS = Costs(exchange=0.001, update=0.0, latency=0.0)


def steady(seconds: float):
    def draw(source: random.Random) -> Iterator[float]:
        while True:
            yield seconds * source.uniform(0.5, 1.5)

    return draw


def simulate(scenario: Scenario, samples: int = 8_000, seed: int = 1) -> Outcome:
    return Simulation(scenario, seed).run(samples, 3 * scenario.workers + scenario.batch)


@pytest.mark.parametrize(("workers", "batch"), [(64, 8), (500, 128), (1000, 10)])
def test_staleness_without_failures_follows_littles_law(workers: int, batch: int) -> None:
    found = simulate(Scenario(workers, batch, steady(20.0), COSTS))
    assert found.staleness == pytest.approx(workers / batch, rel=0.03)


def test_idle_learner_gives_one_sample_per_worker_and_cycle() -> None:
    found = simulate(Scenario(100, 10, steady(10.0), COSTS._replace(latency=0.5)))
    assert found.samples_per_second == pytest.approx(100 / (10.0 + 0.001 + 2 * 0.5), rel=0.01)
    assert found.exchange_50 == pytest.approx(1.001)
    assert found.goodput == pytest.approx(10.0 / 11.001, rel=0.01)
    assert found.learner_waits == pytest.approx(1 - 0.001 * found.samples_per_second, abs=1e-3)


def test_saturated_learner_gives_one_sample_per_service() -> None:
    costs = COSTS._replace(update=0.008)
    found = simulate(Scenario(1000, 8, steady(0.1), costs))
    assert found.samples_per_second == pytest.approx(1 / (0.001 + 0.008 / 8), rel=0.01)
    assert found.learner_waits == pytest.approx(0.0, abs=0.01)
    assert found.exchange_50 == pytest.approx(1000 * 0.002 - 0.1, rel=0.05)  # Little: all others are in the queue
    assert found.staleness == pytest.approx(1000 / 8, rel=0.03)


def test_varying_updates_keep_the_rate_and_lengthen_the_waits() -> None:
    even = simulate(Scenario(1000, 8, steady(0.1), COSTS._replace(update=0.008)))
    varying = simulate(Scenario(1000, 8, steady(0.1), COSTS._replace(update=0.008, update_deviation=0.008)))
    assert varying.samples_per_second == pytest.approx(even.samples_per_second, rel=0.03)
    light = Scenario(100, 8, steady(1.0), COSTS._replace(update=0.008))
    heavy = light._replace(costs=light.costs._replace(update_deviation=0.008))
    assert simulate(heavy).exchange_99 > 1.5 * simulate(light).exchange_99


def md1_wait(rho: float, quantile: float) -> float:
    """Quantile of the waiting time in a queue M/D/1, in services (Erlang 1909)."""

    def below(wait: float) -> float:
        terms = (
            (rho * (k - wait)) ** k / math.factorial(k) * math.exp(-rho * (k - wait)) for k in range(int(wait) + 1)
        )
        return (1 - rho) * math.fsum(terms)

    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < quantile else (low, middle)
    return high


def test_waits_of_random_arrivals_follow_erlangs_formula() -> None:
    def memoryless(source: random.Random) -> Iterator[float]:
        while True:
            yield source.expovariate(1 / 10.0)

    # 7,000 independent workers are nearly a Poisson stream, and an exchange without an update has a constant service.
    found = simulate(Scenario(7000, 70, memoryless, COSTS), samples=60_000)
    rho = 0.001 * found.samples_per_second
    assert rho == pytest.approx(0.7, rel=0.02)
    assert found.exchange_50 == pytest.approx(0.001 * (1 + md1_wait(rho, 0.50)), rel=0.05)
    assert found.exchange_99 == pytest.approx(0.001 * (1 + md1_wait(rho, 0.99)), rel=0.10)


def test_goodput_falls_with_the_failure_rate_of_workers() -> None:
    goodputs = []
    for mtbf in (math.inf, 1000.0, 100.0, 20.0):
        found = simulate(Scenario(200, 10, steady(10.0), COSTS, Failures(worker_mtbf=mtbf, worker_restart=5.0)))
        goodputs.append(found.goodput)
    assert goodputs == sorted(goodputs, reverse=True) and goodputs[0] > 0.99 and goodputs[-1] < 0.7


def test_goodput_of_failing_workers_matches_the_renewal_formula() -> None:
    def constant(source: random.Random) -> Iterator[float]:
        while True:
            yield 10.0

    mtbf, restart = 40.0, 5.0
    failures = Failures(worker_mtbf=mtbf, worker_restart=restart)
    found = simulate(Scenario(400, 10, constant, COSTS._replace(exchange=1e-6), failures), samples=40_000)
    survives = math.exp(-10.0 / mtbf)
    expected = 10.0 * survives / (mtbf * (1 - survives) + restart * (1 - survives))  # useful over mean cycle
    assert found.goodput == pytest.approx(expected, rel=0.02)


def test_failing_learner_loses_the_batch_and_the_time_to_restart() -> None:
    failures = Failures(learner_mtbf=100.0, learner_restart=20.0)
    whole = simulate(Scenario(50, 50, steady(1.0), COSTS))
    failing = simulate(Scenario(50, 50, steady(1.0), COSTS, failures), samples=40_000)
    kept = failing.samples_per_second / whole.samples_per_second
    # Up 100 s of every 120 s, less the pause of up to 15 s after the restart and half a batch.
    assert 0.68 < kept < 100 / 120


def test_staleness_limit_rejects_the_samples_beyond_it() -> None:
    loose = simulate(Scenario(100, 10, steady(10.0), COSTS, max_staleness=1000))
    tight = simulate(Scenario(100, 10, steady(10.0), COSTS, max_staleness=9))
    assert loose.rejected == 0.0
    assert tight.rejected > 0.2 and tight.staleness <= 9


def test_aggregators_of_workers_in_step_fill_their_groups() -> None:
    def constant(source: random.Random) -> Iterator[float]:
        while True:
            yield 10.0

    one_version = Scenario(64, 64, constant, COSTS, aggregators=4, group=16)
    found = simulate(one_version, samples=6400)
    assert 1.0 < found.group <= 16.0
    alone = simulate(one_version._replace(group=1), samples=6400)
    assert alone.group == 1.0


def test_simulation_of_one_seed_is_deterministic() -> None:
    scenario = Scenario(200, 16, steady(1.0), COSTS, Failures(50.0, 1.0, 500.0, 2.0), aggregators=5, group=4)
    assert simulate(scenario, seed=3) == simulate(scenario, seed=3) != simulate(scenario, seed=4)


def test_workers_of_equal_problems_keep_a_steady_rate() -> None:
    def problems(source: random.Random) -> Iterator[float]:
        left = source.uniform(0.0, 10.0)  # of the problem in progress: each takes 10 s, in two samples
        while True:
            first = left * source.uniform(0.8, 1.0)
            yield from (first, left - first)
            left = 10.0

    simulation = Simulation(Scenario(2000, 50, problems, COSTS._replace(exchange=1e-6)), seed=1)
    seconds = [simulation.run(samples, 0).seconds for samples in [1000] * 12]  # a quarter of a cycle each
    assert max(seconds) < 1.2 * min(seconds)
