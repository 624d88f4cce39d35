"""The timing protocol behind every curve over seconds (the paper's Appendix G).

A timed inner step is complete: the batch is drawn, the gradient taken, the optimizer applied, the loss recorded. All
optimizers run in one process on the same task and the same batches, `STEPS` steps at a time, in turn, for `ROUNDS`
rounds; the first run of each compiles and is not counted. Disturbances of the machine then affect all of them alike.
The median over the rounds is reported, and the quartiles say how reliable it is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from workers.evaluation.results import TimingResult

STEPS = 50
ROUNDS = 20


def interleaved(
    cases: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each run of each case. A case must return only when its result is computed."""
    for case in cases.values():
        case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            before = clock()
            case()
            seconds[name].append(clock() - before)
    return seconds


def summarise(name: str, per_step: Mapping[str, list[float]]) -> TimingResult:
    """Median and quartiles over the rounds, of the seconds per step by optimizer."""
    quantiles = {optimizer: np.percentile(spent, [25, 50, 75]).tolist() for optimizer, spent in per_step.items()}
    return TimingResult(
        name,
        {optimizer: median for optimizer, (_, median, _) in quantiles.items()},
        {optimizer: (low, high) for optimizer, (low, _, high) in quantiles.items()},
    )
