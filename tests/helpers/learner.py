"""Samples, configurations and learners for tests: a small theta, no task, no JAX worker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import moments
from common.config import Config, EstimatorConfig, OuterConfig
from common.facts import Facts
from common.messages import GradientSample, Reply, pack_sample, unpack_reply
from learner.hooks import Hooks
from learner.learner import Learner
from learner.recovery import open_learner

DIGEST = "d" * 64
SIZE = 6
SEGMENTS = np.array([0, 0, 0, 0, 1, 1])
THETA = np.linspace(-1, 1, SIZE).astype(np.float32)


def config(estimator: dict[str, Any] | None = None, **outer: Any) -> Config:
    return Config(
        estimator=EstimatorConfig(**(estimator or {})),
        outer=OuterConfig(**{"batch_samples": 4, "updates": 50, **outer}),
    )


def sample(worker: str = "w0", sequence: int = 0, size: int = SIZE, **fields: Any) -> GradientSample:
    """An honest sample whose numbers follow from its name."""
    random = np.random.default_rng([sequence, *worker.encode()])
    pairs = fields.pop("pairs", 1)
    made = GradientSample(
        worker=worker,
        sequence=sequence,
        epoch=1,
        version=0,
        digest=DIGEST,
        objective="train",
        windows=(20,) * pairs,
        starts=(0,) * pairs,
        loss_plus=tuple(random.uniform(1, 2, pairs).tolist()),
        loss_minus=tuple(random.uniform(1, 2, pairs).tolist()),
        rp=moments.of(random.normal(size=(pairs, size))),
        es=moments.of(random.normal(size=(pairs, size))),
        seconds=0.5,
        facts=Facts(inner_steps=40.0 * pairs),
    )
    return made._replace(**fields)


def run_directory(path: Path) -> Path:
    """What `cluster.runs.directory.create` leaves for the learner."""
    (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    return path


def start(path: Path, settings: Config | None = None, theta: np.ndarray = THETA, **hooks: Any) -> Learner:
    segments = SEGMENTS if len(theta) == SIZE else np.zeros(len(theta), int)
    return open_learner(run_directory(path), settings or config(), DIGEST, theta, segments, Hooks(**hooks))[0]


def send(learner: Learner, made: GradientSample, known: Sequence[int] = (-1, -1)) -> Reply:
    return unpack_reply(learner.exchange(pack_sample(made), *known))


def ask(learner: Learner, known: Sequence[int] = (-1, -1)) -> Reply:
    return unpack_reply(learner.exchange(None, *known))


def feed(learner: Learner, count: int, first: int = 0, worker: str = "w0", **fields: Any) -> list[Reply]:
    """`count` samples of one worker, each computed with the parameters of the reply before."""
    reply, replies = ask(learner), []
    for sequence in range(first, first + count):
        made = sample(worker, sequence, **fields)
        reply = send(learner, made._replace(epoch=reply.epoch, version=reply.version))
        replies.append(reply)
    return replies
