"""Line charts for a terminal, drawn with braille characters of two columns and four rows of dots."""

import math
from collections.abc import Sequence
from itertools import pairwise

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column, by row from the top
LABEL = 8  # characters left of the axis


def chart(lines: Sequence[Sequence[float]], width: int, height: int, *, log: bool = False) -> list[list[str]]:
    """Draws lines over a common x axis, newest value at the right; values that are not finite are left out.

    Args:
      width: in characters, of which LABEL are for the y axis.
      height: in characters.
      log: logarithmic y axis; values that are not positive are left out too.

    Returns:
      `height` rows of cells: a label, then `width - LABEL` single characters. A cell with dots of a line is prefixed
      by the index of the line: "0⠉". Where lines share a cell, the last one is drawn.
    """
    columns = max(width - LABEL, 1)
    scaled = [[_scale(v, log) for v in resample(line, 2 * columns)] for line in lines]
    known = [v for line in scaled for v in line if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    cells = [[" "] * columns for _ in range(height)]
    for number, line in enumerate(scaled):
        _draw(cells, number, [None if v is None else (high - v) / (high - low) for v in line])
    labels = {0: high, height - 1: low}
    return [[_label(labels.get(row), log), *cells[row]] for row in range(height)]


def resample(values: Sequence[float], count: int) -> list[float]:
    """At most `count` values: medians of the finite ones in `count` equal bins, in order."""
    if len(values) <= count:
        return list(values)
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [_median(values[a:b]) for a, b in pairwise(edges)]


def _median(values: Sequence[float]) -> float:
    known = sorted(v for v in values if math.isfinite(v))
    return known[len(known) // 2] if known else math.nan


def _scale(value: float, log: bool) -> float | None:
    if not math.isfinite(value) or (log and value <= 0):
        return None
    return math.log10(value) if log else value


def _draw(cells: list[list[str]], number: int, depths: Sequence[float | None]) -> None:
    """`depths` run from 0 (top) to 1 (bottom); neighbours are joined by a vertical line."""
    rows, columns = 4 * len(cells), 2 * len(cells[0])
    stretch = max(1.0, columns / max(len(depths), 1))
    bits: dict[tuple[int, int], int] = {}
    before: int | None = None
    for x in range(min(columns, round(len(depths) * stretch))):
        depth = depths[min(int(x / stretch), len(depths) - 1)]
        y = None if depth is None else min(int(depth * rows), rows - 1)
        if y is not None:
            for dot in _between(before, y):
                cell = (dot // 4, x // 2)
                bits[cell] = bits.get(cell, 0) | DOTS[x % 2][dot % 4]
        before = y
    for (row, column), mask in bits.items():
        cells[row][column] = f"{number}{chr(0x2800 + mask)}"


def _between(before: int | None, now: int) -> range:
    """Rows of the dots that join the row `before` to `now`, without the former."""
    if before is None or before == now:
        return range(now, now + 1)
    return range(before + 1, now + 1) if before < now else range(now, before)


def _label(value: float | None, log: bool) -> str:
    if value is None:
        return " " * LABEL
    shown = 10**value if log else value
    text = f"{shown:.3g}"
    return (text if len(text) < LABEL else f"{shown:.0e}").rjust(LABEL - 1) + " "
