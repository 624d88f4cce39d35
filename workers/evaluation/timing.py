"""The timing protocol behind every curve over seconds (the paper's Appendix G).

One inner step is timed whole: the batch is drawn, the gradient taken, the optimizer applied, the loss recorded. All
optimizers run in one process on the same task and the same batches, `STEPS` steps at a time, in turn, `ROUNDS` rounds
over; the first run of each compiles and is left out. What disturbs the machine so disturbs all of them; the median over
rounds is what counts, and the quartiles say how far to trust it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

STEPS = 50
ROUNDS = 20


def interleaved(
    cases: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each run of each case; a case returns when its result is there."""
    for case in cases.values():
        case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            before = clock()
            case()
            seconds[name].append(clock() - before)
    return seconds


def row(item: str, per_step: Mapping[str, list[float]]) -> dict[str, Any]:
    """A row beside those of unrolls, from no outer split, so that nobody takes it for one."""
    quantiles = {name: np.percentile(spent, [25, 50, 75]).tolist() for name, spent in per_step.items()}
    return {
        "item": item,
        "optimizer": "timing",
        "theta_sha256": None,
        "outer_split": "none",
        "version": None,
        "seconds": {name: q[1] for name, q in quantiles.items()},
        "quartiles": {name: [q[0], q[2]] for name, q in quantiles.items()},
    }
