"""The time of an inner step on this machine, for plans."""

from dataclasses import replace

import numpy as np

from common.config import Config, CurriculumConfig
from workers.bench.figure import cpu
from workers.bench.processes import idle_worker
from workers.worker import Worker

FIRST_WINDOW = 5  # steps: compiles, and shows how long a step takes
SAMPLES = 3


def pair_step_seconds(config: Config, seconds: float = 2.0) -> float:
    """Processor seconds of one inner step of one antithetic pair, with the estimators that the run uses.

    Median of three samples of about `seconds` each, after one that compiles. Windows whose tapes do not fit into memory
    (`workers.unroll.KEPT_BYTES`) take up to a fifth longer per step.
    """
    longest = max(config.curriculum.start, config.curriculum.end)
    ramp = CurriculumConfig(start=1, end=config.task.longest, updates=max(config.task.longest - 1, 1), jitter=0)
    worker = idle_worker(replace(config, curriculum=ramp))
    _timed(worker, FIRST_WINDOW)
    window = min(max(FIRST_WINDOW, round(seconds / _timed(worker, FIRST_WINDOW) / config.estimator.pairs)), longest)
    return float(np.median([_timed(worker, window) for _ in range(SAMPLES)]))


def _timed(worker: Worker, window: int) -> float:
    """Seconds per step of a sample whose windows have this length, or what is left of the inner problem."""
    worker.version = window - 1  # the ramp's window at this version
    began = cpu()
    sample = worker.sample()
    return (cpu() - began) / sum(sample.windows)
