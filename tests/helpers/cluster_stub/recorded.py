"""Workers without JAX that send samples recorded from a real worker: many fit on one machine.

A sample of `Worker` takes as long as one of the quickstart, a sample of `FastWorker` a twentieth of that.
"""

import os
import time
from pathlib import Path
from typing import Any

from stub import Stub

from common import checkpoint
from common.config import Config
from common.messages import GradientSample, unpack_sample

FILE = "recorded.ckpt"  # next to the folder of the runs


class Worker(Stub):
    """Sends each recorded sample under its own name and version, with the duration of its last exchange."""

    seconds = 2.0

    def __init__(self, config: Config, uid: str, exchange: Any):
        super().__init__(config, uid, self._timed(exchange))
        path = Path(os.environ["OUTERTRAIN_RUNS"]).parent / FILE
        self.recorded = [unpack_sample(payload) for payload in checkpoint.load(path)["payloads"]]
        self.exchange_seconds = 0.0

    def _timed(self, exchange: Any) -> Any:
        def call(payload: bytes | None, epoch: int, version: int) -> bytes:
            began = time.perf_counter()
            reply: bytes = exchange(payload, epoch, version)
            self.exchange_seconds = time.perf_counter() - began
            return reply

        return call

    def sample(self) -> GradientSample:
        time.sleep(self.seconds * self.random.uniform(0.75, 1.25))
        real = self.recorded[self.random.integers(len(self.recorded))]
        return real._replace(
            worker=self.uid,
            sequence=self.sequence,
            epoch=self.epoch,
            version=self.version,
            digest=self.digest,
            facts=real.facts._replace(exchange_seconds=self.exchange_seconds),
        )


class FastWorker(Worker):
    """Ten samples per second."""

    seconds = 0.1
