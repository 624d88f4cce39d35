"""What the learner's work costs on this machine."""

import tempfile
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np

from cluster.planning.scenario import Costs
from common import moments
from common.config import Config
from common.facts import Facts
from common.messages import GradientSample, Verdict, pack_sample, unpack_reply
from common.optimizer import initial_theta, make_family
from learner.deduplication import LIMIT
from learner.recovery import open_learner

RAY_SECONDS = 0.0005  # that an actor call of this size takes beyond the learner's own work (docs/scale.md)
UPDATES = 12
DIGEST = "0" * 64


def learner_costs(config: Config, clients: int) -> Costs:
    """Processor seconds of the learner's exchange over Ray and of its update, for this optimizer and batch.

    Means over the exchanges of the last batches of made-up samples, once the learner knows as many workers, or aggregators,
    as there are `clients`: its checkpoints hold the last sequence number of each.
    """
    config = replace(config, outer=replace(config.outer, updates=10**9))
    workers, batch = min(clients, LIMIT), config.outer.batch_samples
    theta, segments = initial_theta(config), make_family(config.optimizer).segments
    sample = _sample(config, len(theta))
    single, filling = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        learner, _ = open_learner(Path(folder), config, DIGEST, theta, segments)
        for update in range(-(-workers // batch) + UPDATES):
            for number in range(update * batch, (update + 1) * batch):
                name, sequence = number % workers, number // workers
                payload = pack_sample(sample._replace(worker=f"w{name}", sequence=sequence, version=update))
                began = process_time()
                reply = learner.exchange(payload, 1, update)
                (single if (number + 1) % batch else filling).append(process_time() - began)
                assert unpack_reply(reply).verdict is Verdict.accepted
    recent = single[-UPDATES * batch :]
    exchange = float(np.mean(recent)) if recent else 0.0
    updates = np.array(filling[-UPDATES:]) - exchange
    return Costs(exchange + RAY_SECONDS, max(float(updates.mean()), 0.0), update_deviation=float(updates.std()))


def _sample(config: Config, size: int) -> GradientSample:
    random, pairs = np.random.default_rng(0), config.estimator.pairs
    rp, es = random.normal(size=(2, pairs, size))
    scalars = (1.0,) * pairs
    return GradientSample(
        worker="",
        sequence=0,
        epoch=1,
        version=0,
        digest=DIGEST,
        objective=config.estimator.objective,
        windows=(1,) * pairs,
        starts=(0,) * pairs,
        loss_plus=scalars,
        loss_minus=scalars,
        rp=moments.of(rp),
        es=moments.of(es),
        seconds=1.0,
        facts=Facts(inner_steps=2.0 * pairs),
        family=config.members[0].name,
    )
