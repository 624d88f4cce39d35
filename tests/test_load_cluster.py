"""A run under load on a Ray cluster: a flood of stale samples, and many workers that start together.

Most workers do not import JAX: they send samples recorded from a real worker with the paper's optimizer. The tests need
an idle machine, and print what they measure: `pytest -m slow tests/test_load_cluster.py -s`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.cluster import Scene, launched, start_cluster, surrounded
from helpers.ray_environment import Cluster, ray

from cluster.actors.worker_program import TRAINING
from cluster.runs import directory
from common import checkpoint, configfile
from common.config import Config
from common.messages import Reply, Verdict, encode_theta, pack_reply, pack_sample, unpack_reply, unpack_sample
from common.optimizer import initial_theta
from learner.history import read_history
from workers.worker import Worker

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.slow, pytest.mark.filterwarnings("ignore:os.fork")]

PAPER = ("optimizer.family=mlp", "outer.learning_rate=0.0001")
PERIOD = 8.0  # seconds of one measurement
LIGHT = {"num_cpus": 0}


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with surrounded(tmp_path_factory.mktemp("load")) as folder:
        config = configfile.load(str(folder / "run.toml"), PAPER)
        checkpoint.save(folder / "recorded.ckpt", {"payloads": recorded(config, 16)})
        yield folder


@pytest.fixture(scope="module")
def cluster(surroundings: Path) -> Iterator[Cluster]:
    cluster = start_cluster(1, cores=8)  # also the number of processes that start at a time
    yield cluster
    cluster.shutdown()


def recorded(config: Config, count: int) -> list[bytes]:
    """Payloads of a real worker whose theta never changes."""
    payloads: list[bytes] = []
    theta = encode_theta(initial_theta(config))

    def exchange(payload: bytes | None, epoch: int, version: int) -> bytes:
        if payload is not None:
            payloads.append(payload)
        return pack_reply(Reply(Verdict.accepted, 1, 0, worker.digest, theta, len(payloads) >= count, 1.0))

    worker = Worker(config, "recorded", exchange)
    worker.run()
    return payloads


class Flood:
    """Sends stale samples from a thread: at most `per_second`, at most eight outstanding."""

    def __init__(self, scene: Scene, folder: Path, per_second: float):
        self._exchange, self._pause = scene.handles.learner.exchange.remote, 1 / per_second
        self._known = unpack_reply(ray.get(self._exchange(None, -1, -1)))
        self._real = unpack_sample(checkpoint.load(folder / "recorded.ckpt")["payloads"][0])
        self.verdicts: list[Verdict | None] = []

    def _payload(self, number: int) -> bytes:
        names = {"worker": f"late{number % 8}", "sequence": number, "epoch": self._known.epoch, "version": 0}
        return pack_sample(self._real._replace(**names, digest=self._known.digest))

    def _run(self, ended: threading.Event) -> None:
        outstanding: list[ray.ObjectRef] = []
        while not ended.wait(self._pause):
            outstanding.append(self._exchange(self._payload(len(self.verdicts)), self._known.epoch, 0))
            done, outstanding = ray.wait(
                outstanding, num_returns=len(outstanding), timeout=None if len(outstanding) > 7 else 0
            )
            self.verdicts += [unpack_reply(reply).verdict for reply in ray.get(done)]

    @contextmanager
    def on(self) -> Iterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def rate(run: directory.RunDirectory, begin: float, end: float) -> float:
    """Updates per second between two moments."""
    return sum(begin <= line.time < end for line in read_history(run.path)) / (end - begin)


def test_load_stale_samples_cost_less_than_a_tenth(surroundings: Path, cluster: Cluster) -> None:
    """As many as valid ones: a worker has one outstanding call, so more would need more slow workers than others."""
    settings = (*PAPER, "outer.max_staleness=50")
    with launched(surroundings, "flooded", 8, *settings, program="recorded:FastWorker", worker=LIGHT) as scene:
        scene.advance(20, 60)
        begin = time.time()
        time.sleep(PERIOD)
        valid = 8 * rate(scene.run, begin, time.time())
        flood = Flood(scene, surroundings, valid)
        calm, flooded = [], []
        for _ in range(3):
            begin = time.time()
            time.sleep(PERIOD)
            calm.append(rate(scene.run, begin, time.time()))
            with flood.on():
                begin = time.time()
                time.sleep(PERIOD)
                flooded.append(rate(scene.run, begin, time.time()))
        left = float(np.median(flooded) / np.median(calm))
        volume = len(flood.verdicts) / (3 * PERIOD)
    print(
        {"fraction_left": left, "valid_per_second": valid, "stale_per_second": volume, "calm": calm, "flooded": flooded}
    )
    assert set(flood.verdicts) == {Verdict.stale}
    assert volume > 0.8 * valid
    assert left > 0.9, (calm, flooded)


def measured(scene: Scene, workers: int, batch: int) -> dict[str, float]:
    """Exchange times and staleness of a run, from its journal and its history."""
    samples = [
        unpack_sample(payload)
        for path in sorted(scene.run.journal.glob("e*-v*.jnl"))
        for payload in checkpoint.load(path)["payloads"]
    ]
    waited = [s.facts.exchange_seconds for s in samples if s.sequence > 1]
    staleness = [line.staleness.mean for line in read_history(scene.run.path)]
    return {
        "seconds_to_start": scene.seconds_to_start,
        "exchanges": len(waited),
        "exchange_median": float(np.median(waited)),
        "exchange_99": float(np.percentile(waited, 99)),
        "exchange_max": max(waited),
        "staleness": float(np.mean(staleness[-len(staleness) // 2 :])),
        "workers_per_batch": workers / batch,
    }


def assert_good(found: dict[str, float]) -> None:
    assert found["seconds_to_start"] < 300 and found["exchange_99"] < 1, found
    assert 0.7 < found["staleness"] / found["workers_per_batch"] < 1.3, found


@pytest.mark.parametrize("workers", [32, 128])
def test_load_many_workers_start_together(surroundings: Path, cluster: Cluster, workers: int) -> None:
    batch = workers // 4
    settings, name = (*PAPER, f"outer.batch_samples={batch}"), f"many{workers}"
    with launched(
        surroundings, name, workers, *settings, program="recorded:Worker", seconds=300, worker=LIGHT
    ) as scene:
        scene.advance(30, 120)
        assert scene.fleet().restarts == 0 and scene.learner().epoch == 1
        found = measured(scene, workers, batch)
    print(found)
    assert_good(found)


def test_load_16_real_workers_start_together(surroundings: Path, cluster: Cluster) -> None:
    """Each needs 290 MB of memory."""
    settings = (*PAPER, "outer.batch_samples=8")
    with launched(surroundings, "real", 16, *settings, program=TRAINING, seconds=300, worker=LIGHT) as scene:
        scene.advance(200, 120)
        assert scene.fleet().restarts == 0 and scene.learner().epoch == 1
        found = measured(scene, 16, 8)
    print(found)
    assert_good(found)
