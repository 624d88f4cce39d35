"""Running moments over past batches that forget by blocks.

Decaying by a factor would remember a variance of 1e14 for thousands of observations after the gradients have become calm.
"""

from typing import NamedTuple

from common.moments import Moments, combine, empty

BLOCK = 32  # observations; the moments cover the last complete block and the one being filled


class Running(NamedTuple):
    """The observations of past batches."""

    older: Moments  # of the last complete block of BLOCK observations or a few more; empty at first
    newer: Moments  # of the observations since then


def start(size: int) -> Running:
    """The state before the first batch; `size` is P."""
    return Running(empty(size), empty(size))


def observe(running: Running, batch: Moments) -> Running:
    """The state after a batch with these moments."""
    newer = combine(running.newer, batch)
    return Running(newer, empty(len(batch.mean))) if newer.count >= BLOCK else running._replace(newer=newer)


def moments(running: Running) -> Moments:
    """Of all observations that are remembered."""
    return combine(running.older, running.newer)
