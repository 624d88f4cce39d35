"""Programs that record the verdict of each reply in a file per worker, in a folder next to the runs; for long tests.

`stubs`: no worker imports JAX. `mixed`: the workers of the first two slots are real ones, at a stub's pace.
"""

import os
import time
from pathlib import Path

from stub import SECONDS, Stub

from cluster.actors.worker_program import TrainingProgram, WorkerProgram
from common.config import Config
from common.exchange import Exchange
from common.messages import unpack_reply, unpack_sample

REAL = ("w0-", "w1-")


def stubs(config: Config, uid: str, exchange: Exchange) -> WorkerProgram:
    return Stub(config, uid, recording(exchange, uid))


def mixed(config: Config, uid: str, exchange: Exchange) -> WorkerProgram:
    return (SlowTraining if uid.startswith(REAL) else Stub)(config, uid, recording(exchange, uid))


class SlowTraining(TrainingProgram):
    """A real worker that takes at least as long for a sample as a stub."""

    def step(self) -> bool:
        time.sleep(SECONDS)
        return super().step()


def recording(exchange: Exchange, uid: str) -> Exchange:
    """The exchange; writes a line for each sample that got a reply: its sequence number and verdict."""
    folder = Path(os.environ["OUTERTRAIN_RUNS"]).parent / "replies"
    folder.mkdir(exist_ok=True)

    def call(payload: bytes | None, epoch: int, version: int) -> bytes:
        reply = exchange(payload, epoch, version)
        if payload is not None:
            verdict = unpack_reply(reply).verdict
            with open(folder / uid, "a") as file:
                file.write(f"{unpack_sample(payload).sequence} {verdict.value if verdict else None}\n")
        return reply

    return call
