"""Running moments over past batches that forget by blocks, kept apart by families of tasks.

Decaying by a factor would remember a variance of 1e14 for thousands of observations after the gradients have become calm.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from common.moments import Moments, combine, empty, pooled

BLOCK = 32  # observations; the moments cover the last complete block and the one being filled


class Running(NamedTuple):
    """The observations of past batches, by family; "" without a mixture."""

    older: Mapping[str, Moments]  # of the last complete block of BLOCK observations or a few more; empty at first
    newer: Mapping[str, Moments]  # of the observations since then


def start(size: int, families: Iterable[str] = ("",)) -> Running:
    """The state before the first batch; `size` is P."""
    nothing = dict.fromkeys(families, empty(size))
    return Running(nothing, nothing)


def observe(running: Running, batch: Mapping[str, Moments]) -> Running:
    """The state after a batch with these moments, by family."""
    nothing = empty(len(next(iter(running.newer.values())).mean))
    newer = {family: combine(known, batch.get(family, nothing)) for family, known in running.newer.items()}
    full = sum(known.count for known in newer.values()) >= BLOCK
    return Running(newer, dict.fromkeys(newer, nothing)) if full else running._replace(newer=newer)


def by_family(running: Running) -> dict[str, Moments]:
    """Of all observations that are remembered, by family."""
    return {family: combine(running.older[family], newer) for family, newer in running.newer.items()}


def moments(running: Running) -> Moments:
    """Of all observations that are remembered, with their deviations within the families (`common.moments.pooled`)."""
    both = list(by_family(running).values())
    return pooled(both, len(both[0].mean))


def to_record(running: Running) -> list[Any]:
    """What a checkpoint holds; without a mixture six numbers and vectors, as in those that are older than mixtures."""
    if running.newer.keys() == {""}:
        return [number for block in running for known in block.values() for number in known]
    return [{family: list(known) for family, known in block.items()} for block in running]


def from_record(record: Sequence[Any]) -> Running:
    blocks = record if len(record) == 2 else [{"": record[:3]}, {"": record[3:]}]
    older, newer = ({family: Moments(*known) for family, known in block.items()} for block in blocks)
    return Running(older, newer)
