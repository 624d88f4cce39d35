"""Measures learner and aggregators under thousands of stub workers, and the simulation against them.

`python tests/scale.py --output docs/scale.json` prints one line for each measured point and its simulated twin. A stub
worker is a timer and a prepared sample of the paper's optimizer. In one process, exchanges are calls; with `--ray`, the
learner is an actor and the workers are tasks of one asyncio loop.

In one process the clock is that of the simulation, advanced by the processor time of each exchange: what other programs
take from this machine does not count. Over Ray the clock is the machine's.
"""

import argparse
import asyncio
import gc
import heapq
import json
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.actors.bench_learner import DIGEST, sample, temporary_runs
from cluster.planning.scenario import Costs, Outcome, Scenario
from cluster.planning.simulation import Simulation
from common.config import Config, OuterConfig, WorkersConfig
from common.messages import Verdict, pack_sample, unpack_reply
from common.optimizer import initial_theta, make_family
from learner.aggregator import Aggregator
from learner.learner import Learner
from learner.recovery import open_learner

BATCH = 128
CONFIG = Config(outer=OuterConfig(batch_samples=BATCH, updates=10**9), workers=WorkersConfig(aggregate=32))
SPREAD = 0.25  # sample times are uniform in (1 - SPREAD, 1 + SPREAD) times their mean
CHUNKS = 16
CYCLES = 4  # samples of each worker that are measured; half as many before
SAMPLE = sample("w0", 1, DIGEST)
Exchange = Callable[[bytes | None, int, int], bytes]


class Point(NamedTuple):
    """What is measured and what is simulated."""

    workers: int
    load: float  # offered samples per second over what the learner can take
    aggregators: int = 0
    group: int = 1


POINTS = (
    Point(1000, 0.5),
    Point(1000, 0.8),
    Point(1000, 1.5),
    Point(3000, 0.5),
    Point(3000, 0.8),
    Point(3000, 1.5),
    Point(10_000, 0.5),
    Point(10_000, 0.8),
    Point(10_000, 1.5),
    Point(1000, 0.4, 31, 32),
    Point(10_000, 0.4, 312, 32),
)

RAY_POINTS = tuple(Point(workers, 0.6) for workers in (1000, 3000, 10_000))


class Measured(NamedTuple):
    samples_per_second: float
    staleness: float
    exchange_50: float
    exchange_99: float
    learner_waits: float | None  # not known over Ray
    group: float
    megabytes: float  # of resident memory that the point added


def durations(mean: float) -> Callable[[random.Random], Iterator[float]]:
    def draw(source: random.Random) -> Iterator[float]:
        while True:
            yield mean * source.uniform(1 - SPREAD, 1 + SPREAD)

    return draw


class Stub:
    """A worker: what it knows, and its next payload."""

    def __init__(self, uid: str, seconds: Iterator[float]):
        self.uid, self.seconds = uid, seconds
        self.epoch = self.version = -1
        self.digest, self.sequence = "", 0

    def payload(self) -> bytes | None:
        if self.version < 0:
            return None
        self.sequence += 1
        known = {"epoch": self.epoch, "version": self.version, "digest": self.digest}
        return pack_sample(SAMPLE._replace(worker=self.uid, sequence=self.sequence, **known))

    def take(self, reply: bytes) -> Verdict | None:
        answer = unpack_reply(reply)
        self.epoch, self.version, self.digest = answer.epoch, answer.version, answer.digest
        return answer.verdict


def resident() -> float:
    """Megabytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class OneProcess:
    """A learner, and aggregators in front of it if asked for, on one core whose clock stands still while it is idle."""

    def __init__(self, folder: str, point: Point, mean: float):
        self._run = Path(folder)
        (self._run / "checkpoints").mkdir()
        segments = make_family(CONFIG.optimizer).segments
        self.learner: Learner = open_learner(self._run, CONFIG, DIGEST, initial_theta(CONFIG), segments)[0]
        self._calls = 0
        self.last_exchange = 0.0  # the learner's own processor seconds
        self._doors: list[Exchange] = [
            Aggregator(CONFIG, f"a{k}", self._count, point.group).exchange for k in range(point.aggregators)
        ] or [self._count]
        source = random.Random(1)
        self._stubs = [Stub(f"w{k}", durations(mean)(source)) for k in range(point.workers)]
        for k, stub in enumerate(self._stubs):  # known before the clock runs, and out of phase
            stub.take(self._doors[k % len(self._doors)](None, -1, -1))
        self._due = [(next(stub.seconds) * source.random(), k) for k, stub in enumerate(self._stubs)]
        heapq.heapify(self._due)
        self._now = 0.0
        gc.collect()
        gc.freeze()  # else collections walk all stub workers, which no learner holds

    def _count(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        self._calls += payload is not None
        began = time.process_time()
        reply = self.learner.exchange(payload, epoch, version)
        self.last_exchange = time.process_time() - began
        return reply

    def go(self, samples: int) -> tuple[float, float, list[float]]:
        """Seconds that passed, seconds of computing, and for each exchange the seconds from request to reply."""
        began, busy, waits = self._now, 0.0, []
        for _ in range(samples):
            due, k = heapq.heappop(self._due)
            stub = self._stubs[k]
            self._now = max(self._now, due)
            before = time.process_time()
            verdict = stub.take(self._doors[k % len(self._doors)](stub.payload(), stub.epoch, stub.version))
            spent = time.process_time() - before
            assert verdict is Verdict.accepted, verdict
            self._now += spent
            busy += spent
            waits.append(self._now - due)
            heapq.heappush(self._due, (self._now + next(stub.seconds), k))
        return self._now - began, busy, waits

    def measure(self, memory: float, between: Callable[[], None]) -> Measured:
        """Measures in chunks of a few batches, and calls `between` after each.

        Quantiles are medians over the chunks: other programs change the speed of this machine, and one slow chunk of a busy
        learner would decide the quantiles of the whole.
        """
        size = len(self._stubs)
        self.go(CYCLES // 2 * size)
        first, self._calls = self.learner.status().version, 0
        seconds = busy = 0.0
        waits: list[list[float]] = []
        for _ in range(CHUNKS):
            passed, computed, waited = self.go(CYCLES * size // CHUNKS)
            seconds, busy = seconds + passed, busy + computed
            waits.append(waited)
            between()
        count = sum(map(len, waits))
        lines = [line for line in read_lines(self._run) if line["version"] > first]
        return Measured(
            count / seconds,
            float(np.mean([line["staleness"]["mean"] for line in lines])),
            float(np.median([np.median(chunk) for chunk in waits])),
            float(np.median([np.percentile(chunk, 99) for chunk in waits])),
            1 - busy / seconds,
            count / self._calls,
            resident() - memory,
        )


def read_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


class Calibration:
    """Processor seconds of an exchange, of an update and of an aggregator's exchange: means over a learner that is kept busy by as many workers.

    Taken in turns with the measurement, so that what disturbs the machine disturbs both.
    """

    def __init__(self, folder: str, point: Point):
        self._place = OneProcess(folder, point, 1e-4 * point.workers)  # busy, and in a random order
        self._place.go(2 * point.workers)
        self._aggregated = point.aggregators > 0
        self._single: list[float] = []
        self._filling: list[float] = []
        self._before: list[float] = []  # an aggregator's time

    def go(self, batches: int = 4) -> None:
        place = self._place
        for _ in range(batches * BATCH):
            before, place.last_exchange = place.learner.status().version, 0.0
            spent = place.go(1)[1]
            if self._aggregated:
                self._before.append(spent - place.last_exchange)
                spent = place.last_exchange
            if spent:  # else the aggregator keeps the sample
                (self._filling if place.learner.status().version > before else self._single).append(spent)

    def costs(self) -> Costs:
        exchange, aggregate = float(np.mean(self._single)), float(np.mean(self._before or [0.0]))
        low, high = np.percentile(self._filling, [25, 75])  # not the deviation itself: other programs cause outliers
        update, deviation = float(np.mean(self._filling)) - exchange, float(high - low) / 1.349
        return Costs(exchange, update, latency=0.0, aggregate=aggregate, update_deviation=deviation)


def capacity(costs: Costs) -> float:
    """Samples per second that a learner can take, without aggregators."""
    return 1 / (costs.exchange + costs.update / BATCH)


def simulate(point: Point, costs: Costs, mean: float) -> Outcome:
    scenario = Scenario(
        point.workers,
        BATCH,
        durations(mean),
        costs,
        aggregators=point.aggregators,
        group=point.group,
        one_core=point.aggregators > 0,
    )
    simulation = Simulation(scenario, 1)
    whole = simulation.run(CYCLES * point.workers, CYCLES // 2 * point.workers)
    chunks = [simulation.run(CYCLES * point.workers // CHUNKS, 0) for _ in range(CHUNKS)]
    middle = {name: float(np.median([getattr(c, name) for c in chunks])) for name in ("exchange_50", "exchange_99")}
    return whole._replace(**middle)


def compared(point: Point, mean: float, measured: Measured, simulated: Outcome) -> dict[str, Any]:
    """A row of the validation table."""
    quantities = ("samples_per_second", "staleness", "exchange_50", "exchange_99", "learner_waits")
    row: dict[str, Any] = {**point._asdict(), "sample_seconds": mean, "megabytes": measured.megabytes}
    for name in quantities:
        row[name] = {"measured": getattr(measured, name), "simulated": getattr(simulated, name)}
    row["samples_per_exchange"] = {"measured": measured.group, "simulated": simulated.group}
    return row


def in_one_process(points: tuple[Point, ...]) -> list[dict[str, Any]]:
    rows = []
    for point in points:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
            calibration = Calibration(other, point)
            calibration.go()
            mean = point.workers / (point.load * capacity(calibration.costs()))
            memory = resident()
            measured = OneProcess(folder, point, mean).measure(memory, calibration.go)
            costs = calibration.costs()
        rows.append(compared(point, mean, measured, simulate(point, costs, mean)) | {"costs": costs._asdict()})
        print(json.dumps(rows[-1]), flush=True)
    return rows


class OverRay:
    """Stub workers as tasks of one event loop, and the learner as an actor: two processes for two cores."""

    def __init__(self, learner: Any, run: Path, workers: int):
        self._learner, self._run = learner, run
        self._stubs = [Stub(f"{secrets.token_hex(3)}-{k}", iter(())) for k in range(workers)]
        self._source = random.Random(1)
        self._mean = 0.0
        self._waits: list[tuple[float, float]] = []  # when the request left, seconds until the reply
        self._memory = 0.0

    async def _work(self, stub: Stub, end: float) -> None:
        await asyncio.sleep(self._mean * self._source.random())
        while time.perf_counter() < end:
            began = time.perf_counter()
            reply = await self._learner.exchange.remote(stub.payload(), stub.epoch, stub.version)
            assert stub.take(reply) in (Verdict.accepted, None)
            self._waits.append((began, time.perf_counter() - began))
            await asyncio.sleep(self._mean * self._source.uniform(1 - SPREAD, 1 + SPREAD))

    async def run(self, mean: float, seconds: float, workers: int | None = None) -> Measured:
        """Measures the second half of the time, with so many of the workers."""
        self._mean, self._waits = mean, []
        stubs = self._stubs[:workers]
        began = time.perf_counter()
        await asyncio.gather(*(self._work(stub, began + seconds) for stub in stubs))
        middle, end = began + seconds / 2, began + seconds
        waits = [wait for sent, wait in self._waits if middle <= sent < end]
        lines = read_lines(self._run)
        status = await self._learner.pid.remote()
        memory = int(Path(f"/proc/{status}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        staleness = [line["staleness"]["mean"] for line in lines[-max(1, int(len(waits) / BATCH * 0.9)) :]]
        return Measured(
            len(waits) / (end - middle),
            float(np.mean(staleness)),
            float(np.median(waits)),
            float(np.percentile(waits, 99)),
            None,
            1.0,
            memory,
        )


def over_ray(points: tuple[Point, ...]) -> list[dict[str, Any]]:
    """The cost of an exchange is that of 64 workers without pauses; the latency is what one worker waits beyond it."""
    from cluster.actors import ray_session
    from cluster.runs import directory

    rows = []
    with temporary_runs(), ray_session.local(2, "scale", CONFIG):
        from cluster.actors.learner_actor import start_learner

        run = directory.create("scale", CONFIG)
        learner = start_learner(run.path)
        ready = asyncio.run(await_reference(learner.ready.remote()))
        assert ready is None
        with tempfile.TemporaryDirectory() as folder:
            calibration = Calibration(folder, Point(1000, 0.0))
            calibration.go(16)
            alone = calibration.costs()
        busy = asyncio.run(OverRay(learner, run.path, 64).run(0.0, 12.0))
        single = asyncio.run(OverRay(learner, run.path, 1).run(0.0, 4.0))
        exchange = 1 / busy.samples_per_second - alone.update / BATCH
        latency = max(0.0, single.exchange_50 - exchange) / 2
        costs = alone._replace(exchange=exchange, latency=latency)
        for point in points:
            mean = point.workers / (point.load * capacity(costs))
            seconds = max(20.0, 8 * mean)
            measured = asyncio.run(OverRay(learner, run.path, point.workers).run(mean, seconds))
            rows.append(compared(point, mean, measured, simulate(point, costs, mean)) | {"costs": costs._asdict()})
            print(json.dumps(rows[-1] | {"load_average": os.getloadavg()[0]}), flush=True)
    return rows


async def await_reference(reference: Any) -> Any:
    return await reference


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of docs/scale.md: measured, and simulated over measured."""
    lines = []
    for row in rows:

        def cell(name: str, factor: float = 1.0, row: dict[str, Any] = row) -> str:
            measured, simulated = row[name]["measured"] or 0.0, row[name]["simulated"]
            value = max(factor * measured, 0.0)
            return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + (
                f" ({simulated / measured:.2f})" if factor * measured > 0.01 else ""
            )

        place = f"{row['workers']:,}" + (f", {row['aggregators']} aggregators" if row["aggregators"] else "")
        cells = [place, f"{row['sample_seconds']:.3g} s", cell("samples_per_second"), cell("staleness")]
        cells += [cell("exchange_50", 1e3), cell("exchange_99", 1e3), cell("learner_waits", 100)]
        cells += [cell("samples_per_exchange"), f"{row['megabytes']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    parser.add_argument("--ray", action="store_true", help="measure over Ray instead of in one process")
    arguments = parser.parse_args()
    rows = over_ray(RAY_POINTS) if arguments.ray else in_one_process(POINTS)
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
