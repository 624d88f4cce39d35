"""A worker without JAX, for tests of processes and nodes: it sends random samples that any learner accepts."""

import time
from typing import Any

import numpy as np

from common import moments
from common.config import Config
from common.facts import Facts
from common.messages import GradientSample, pack_sample, unpack_reply

SECONDS = 0.1  # per sample


class Stub:
    """A `cluster.actors.worker_program.WorkerProgram`. The noise of its gradients is determined by its uid."""

    def __init__(self, config: Config, uid: str, exchange: Any):
        self.uid, self.exchange = uid, exchange
        self.random = np.random.default_rng(list(uid.encode()))
        self.epoch = self.version = -1
        self.theta, self.digest, self.sequence = np.zeros(0), "", 0

    def step(self) -> bool:
        payload = None if self.sequence == 0 else pack_sample(self.sample())
        reply = unpack_reply(self.exchange(payload, self.epoch, self.version))
        self.epoch, self.version, self.digest = reply.epoch, reply.version, reply.digest
        if reply.theta is not None:
            self.theta = np.frombuffer(reply.theta, "<f4")
        self.sequence += 1
        return not reply.stop

    def sample(self) -> GradientSample:
        time.sleep(SECONDS)
        rp, es = (moments.of(self.theta + self.random.normal(size=(1, len(self.theta)))) for _ in range(2))
        return GradientSample(
            worker=self.uid,
            sequence=self.sequence,
            epoch=self.epoch,
            version=self.version,
            digest=self.digest,
            objective="train",
            windows=(4,),
            starts=(0,),
            loss_plus=(1.0,),
            loss_minus=(1.0,),
            rp=rp,
            es=es,
            seconds=SECONDS,
            facts=Facts(inner_steps=8.0),
        )

    def perform(self, job: dict[str, Any]) -> dict[str, Any]:
        time.sleep(SECONDS)
        return {"item": job["item"], "worker": self.uid}
