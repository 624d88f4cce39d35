"""Benchmarks of the learner: alone, over Ray, and the time to the first update of a run."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cluster.actors import ray_session
from cluster.runs import directory
from common import moments
from common.config import Config, OuterConfig
from common.facts import Facts
from common.messages import GradientSample, Reply, Verdict, pack_sample, unpack_reply
from common.optimizer import initial_theta, make_family
from learner.recovery import open_learner
from workers.bench.figure import Measured, cpu, divided

SAMPLES = 128
CLIENTS = 8  # stub workers, each with one outstanding call
EXCHANGES = 512  # in one timed round over Ray
DIGEST = "0" * 64
CONFIG = Config(outer=OuterConfig(batch_samples=SAMPLES, updates=10_000))


def sample(worker: str, sequence: int, digest: str, epoch: int = 1, version: int = 0) -> GradientSample:
    """A sample of one pair for the paper's optimizer, with plausible values."""
    random = np.random.default_rng([sequence, *worker.encode()])
    rp, es = random.normal(size=(2, 1, make_family(CONFIG.optimizer).size))
    return GradientSample(
        worker=worker,
        sequence=sequence,
        epoch=epoch,
        version=version,
        digest=digest,
        objective=CONFIG.estimator.objective,
        windows=(50,),
        starts=(0,),
        loss_plus=(2.0,),
        loss_minus=(2.1,),
        rp=moments.of(rp),
        es=moments.of(es),
        seconds=0.5,
        facts=Facts(inner_steps=100.0),
    )


def batch(rounds: int) -> Measured:
    """CPU milliseconds of the exchanges of one batch, the last of which updates and writes the checkpoint."""
    theta, segments = initial_theta(CONFIG), make_family(CONFIG.optimizer).segments
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        learner, _ = open_learner(Path(folder), CONFIG, DIGEST, theta, segments)
        values = []
        for sequence in range(rounds + 1):
            payloads = [pack_sample(sample(f"w{k}", sequence, DIGEST)) for k in range(SAMPLES)]
            before = cpu()
            replies = [learner.exchange(payload, 1, sequence) for payload in payloads]
            values.append(1e3 * (cpu() - before))
            check(replies)
    return Measured(values[1:], {"payload_bytes": len(payloads[0]), "updates": learner.status().version})


def check(replies: list[bytes]) -> None:
    """Raises ValueError unless all samples were accepted: timings of rejected ones would be worthless."""
    verdicts = {unpack_reply(reply).verdict for reply in replies}
    if verdicts != {Verdict.accepted}:
        raise ValueError(f"the learner did not accept the bench's samples: {verdicts}")


class Echo:
    """The cheapest possible actor: returns what it gets."""

    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        return payload or b""


def over_ray(rounds: int) -> Measured:
    """Exchanges per second of `CLIENTS` stub workers with the learner, divided by those with `Echo`, in turn."""
    with temporary_runs(), ray_session.local(2, "bench", CONFIG):
        import ray

        from cluster.actors.base import actor_class
        from cluster.actors.learner_actor import start_learner

        run = directory.create("bench", CONFIG)
        learner = start_learner(run.path)
        ray.get(learner.ready.remote())
        echo = actor_class(Echo, {}, exchange=CLIENTS).remote()
        known = unpack_reply(ray.get(learner.exchange.remote(None, -1, -1)))
        learners, echoes, sequence = [], [], 0
        for _ in range(rounds + 1):
            payloads = payloads_of(known, sequence)
            echoes.append(rate(echo.exchange.remote, payloads, known)[0])
            speed, replies = rate(learner.exchange.remote, payloads, known)
            check(replies)
            known = unpack_reply(replies[-1])
            learners.append(speed)
            sequence += len(payloads[0])
        ray.get(learner.close.remote())
    return Measured(
        divided(learners[1:], echoes[1:]),
        {
            "payload_bytes": len(payloads[0][0]),
            "learner_per_second": float(np.median(learners[1:])),
            "echo_per_second": float(np.median(echoes[1:])),
        },
    )


def payloads_of(known: Reply, sequence: int) -> list[list[bytes]]:
    """The packed samples of one round, by client."""
    each = range(sequence, sequence + EXCHANGES // CLIENTS)
    return [
        [pack_sample(sample(f"w{client}", number, known.digest, known.epoch)) for number in each]
        for client in range(CLIENTS)
    ]


def rate(exchange: Callable[..., Any], payloads: list[list[bytes]], known: Reply) -> tuple[float, list[bytes]]:
    """Returns exchanges per second, and the replies. Each client has one outstanding call."""
    import ray

    queues = [iter(queue) for queue in payloads]
    before, replies = time.perf_counter(), []
    waiting = {exchange(next(queue), known.epoch, known.version): queue for queue in queues}
    while waiting:
        (done,), _ = ray.wait(list(waiting))
        queue = waiting.pop(done)
        replies.append(ray.get(done))
        payload = next(queue, None)
        if payload is not None:
            waiting[exchange(payload, known.epoch, known.version)] = queue
    return len(replies) / (time.perf_counter() - before), replies


def first_update(rounds: int) -> Measured:
    """Seconds from the start of `outertrain train` to its first outer update. The first run fills the cache."""
    values = []
    for _ in range(rounds + 1):
        with temporary_runs():
            command = [sys.executable, "-m", "cluster.cli.main", "train", "--updates", "1", "--no-evaluate", "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
            values.append(float(json.loads(done.stdout.splitlines()[-1])["seconds_to_first_update"]))
    return Measured(values[1:], {"cold_or_first": values[0], "load": os.getloadavg()[0]})


@contextmanager
def temporary_runs() -> Iterator[None]:
    """Runs created in this block are deleted at its end."""
    before = os.environ.get(directory.ROOT_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[directory.ROOT_VARIABLE] = folder
        try:
            yield
        finally:
            os.environ.pop(directory.ROOT_VARIABLE)
            if before is not None:
                os.environ[directory.ROOT_VARIABLE] = before
