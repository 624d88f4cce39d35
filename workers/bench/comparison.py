"""Two answers of `outertrain bench`: which figures differ by more than the noise of both."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError
from workers.bench.figure import Outcome

PROCESSES = 0.01  # relative: two processes that measure the same one after the other differ by as much
BETTER, WORSE, UNDECIDED, DIFFERENT = "better", "worse", "undecided", "another definition"


class Answer(NamedTuple):
    """An answer that was saved."""

    machine: str  # "" where it does not say
    outcomes: Mapping[str, Outcome]  # by figure


class Change(NamedTuple):
    """A figure in two answers. The fields are the keys of its JSON."""

    figure: str
    before: float
    now: float
    ratio: float | None  # now / before; None: before is 0
    verdict: str


def compare(before: Mapping[str, Outcome], now: Sequence[Outcome]) -> list[Change]:
    """The figures that both have measured, in the order of `now`."""
    changes = []
    for one in now:
        other = before.get(one.figure)
        if other is not None and other.value is not None and one.value is not None:
            ratio = one.value / other.value if other.value else None
            changes.append(Change(one.figure, other.value, one.value, ratio, verdict(other, one)))
    return changes


def verdict(before: Outcome, now: Outcome) -> str:
    """Undecided where the quartiles of both, widened by `PROCESSES`, overlap."""
    if before.what != now.what:
        return DIFFERENT
    (old_low, old_high), (new_low, new_high) = _range(before), _range(now)
    if new_low <= old_high and old_low <= new_high:
        return UNDECIDED
    return BETTER if (new_low > old_high) == (now.sense == "at least") else WORSE


def _range(outcome: Outcome) -> tuple[float, float]:
    assert outcome.value is not None
    low, high = outcome.spread or (outcome.value, outcome.value)
    return low - PROCESSES * abs(low), high + PROCESSES * abs(high)


def read(path: Path) -> Answer:
    """An answer of `outertrain bench --json` in a file.

    Raises:
      UserError: it cannot be read, or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(
            f"cannot read {path} ({why}): give a file that `outertrain bench --json > FILE` has written"
        ) from None
    except UnicodeDecodeError:
        raise _wrong(path, "it is no text") from None
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong(path, "it is no JSON") from None
    figures = answer.get("figures") if isinstance(answer, dict) else None
    if not isinstance(figures, list):
        raise _wrong(path, "it has no list of figures")
    machine = answer.get("machine")
    outcomes = [_outcome(path, record) for record in figures]
    return Answer(described(machine if isinstance(machine, dict) else {}), {one.figure: one for one in outcomes})


def _outcome(path: Path, record: Any) -> Outcome:
    """The fields of a record that are compared. Raises UserError."""
    if not isinstance(record, dict):
        raise _wrong(path, "a figure is no object")
    name, what, value, spread = (record.get(key) for key in ("figure", "what", "value", "spread"))
    if not (isinstance(name, str) and isinstance(what, str)):
        raise _wrong(path, "a figure has no name or no description")
    if value is not None and not _is_number(value):
        raise _wrong(path, f"the value of {name} is no number")
    if spread is not None and not (isinstance(spread, list) and len(spread) == 2 and all(map(_is_number, spread))):
        raise _wrong(path, f"the spread of {name} is no pair of numbers")
    return Outcome(name, what, value, None if spread is None else (spread[0], spread[1]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is no answer of `outertrain bench --json` ({why}): save one with `outertrain bench --json > FILE`"
    )


def described(machine: Mapping[str, Any]) -> str:
    """A machine in words, such as "AMD EPYC, AVX2, 2 cores"; what an answer does not say is left out."""
    parts = [machine.get("processor"), machine.get("instructions")]
    parts.append(f"{machine['cores']} cores" if "cores" in machine else None)
    return ", ".join(str(part) for part in parts if part)
