"""The process of a `PinnedWorker`: reads a number of seconds, computes samples, writes inner steps per second."""

import os
import sys
import time

from common import runtime
from common.config import Config, CurriculumConfig


def main(core: int) -> None:
    os.sched_setaffinity(0, {core})
    runtime.prepare(pin=False)
    from dataclasses import replace

    from workers.bench.processes import idle_worker

    worker = idle_worker(replace(Config(), curriculum=CurriculumConfig(start=50, end=50)))
    worker.sample()
    print(0.0, flush=True)  # compiled
    for line in sys.stdin:
        began, steps = time.perf_counter(), 0.0
        while (spent := time.perf_counter() - began) < float(line):
            steps += worker.sample().facts.inner_steps or 0
        print(steps / spent, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
