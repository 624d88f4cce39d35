"""A learner in a process of its own, without Ray: frames on standard input and output, killed and started again.

As a script it is the learner; `LearnerProcess` is its other end.
"""

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HEAD = struct.Struct("<iqq")  # bytes of the payload (-1: none), epoch, version


class Gone(Exception):
    """The learner died before it answered."""


class LearnerProcess:
    """The `exchange` of a learner on `run`, made with the options `outer`; it dies at `failpoint`, if one is named."""

    def __init__(self, run: Path, outer: dict[str, Any], size: int, failpoint: str = "") -> None:
        began = time.monotonic()
        arguments = [sys.executable, "-m", __name__, str(run), json.dumps(outer), str(size)]
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"OUTERTRAIN_FAILPOINT": failpoint, "PYTHONPATH": path}
        self._process = subprocess.Popen(
            arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._read(5) == b"ready"
        self.seconds_to_start = time.monotonic() - began

    def exchange(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        assert self._process.stdin is not None
        size = -1 if payload is None else len(payload)
        try:
            self._process.stdin.write(HEAD.pack(size, epoch, version) + (payload or b""))
        except BrokenPipeError:
            raise Gone from None
        return self._read(struct.unpack("<i", self._read(4))[0])

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = b""
        while len(data) < size:
            chunk = self._process.stdout.read(size - len(data))
            if not chunk:
                raise Gone
            data += chunk
        return data

    def wait(self) -> int:
        """Its exit code, once it has died."""
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(30)


def serve(run: Path, outer: dict[str, Any], size: int) -> None:
    import numpy as np

    from helpers.learner import config, start
    from learner.failpoints import from_environment

    learner = start(run, config(**outer), np.zeros(size, np.float32), failpoint=from_environment())
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(b"ready")
    sink.flush()
    while head := source.read(HEAD.size):
        length, epoch, version = HEAD.unpack(head)
        reply = learner.exchange(None if length < 0 else source.read(length), epoch, version)
        sink.write(struct.pack("<i", len(reply)) + reply)
        sink.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]))
