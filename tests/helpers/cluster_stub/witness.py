"""Workers that note the verdict of each answer in a file of their own, beside the runs: for long tests.

Programs: `stubs` are all without JAX; of `mixed`, the first two slots are real workers, at a stub's pace.
"""

import os
import time
from pathlib import Path

from stub import SECONDS, Stub

from cluster.actors.exchange_client import Call
from cluster.actors.worker_program import ForRuns, Workplace
from common.config import Config
from common.messages import unpack_reply, unpack_sample

REAL = ("w0-", "w1-")


def stubs(config: Config, uid: str, exchange: Call) -> Workplace:
    return Stub(config, uid, noted(exchange, uid))


def mixed(config: Config, uid: str, exchange: Call) -> Workplace:
    return (Real if uid.startswith(REAL) else Stub)(config, uid, noted(exchange, uid))


class Real(ForRuns):
    """A real worker that takes as long for a sample as a stub does."""

    def step(self) -> bool:
        time.sleep(SECONDS)
        return super().step()


def noted(exchange: Call, uid: str) -> Call:
    """The exchange, which leaves a line for each sample that was answered: its number and the verdict."""
    folder = Path(os.environ["OUTERTRAIN_RUNS"]).parent / "answers"
    folder.mkdir(exist_ok=True)

    def call(payload: bytes | None, epoch: int, version: int) -> bytes:
        answer = exchange(payload, epoch, version)
        if payload is not None:
            verdict = unpack_reply(answer).verdict
            with open(folder / uid, "a") as file:
                file.write(f"{unpack_sample(payload).sequence} {verdict.value if verdict else None}\n")
        return answer

    return call
