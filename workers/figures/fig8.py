"""Figure 8: what the ablations of `workers.figures.ablations` end at, for the same budget of inner steps."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from common.errors import UserError
from workers.figures.ablations import (
    ESTIMATORS,
    HELD,
    KINDS,
    MERGED,
    QUARTER,
    RECENT,
    SCALES,
    Training,
    by_variant,
    jobs,
    perform,
    score,
)
from workers.figures.figure import GUESSING, Outcome, Results, config_of
from workers.figures.statistics import Decision, Interval, every, mean, paired, steadier, word

__all__ = ["CLAIM", "FROM_PARTS", "KINDS", "NEEDS", "SCALES", "jobs", "outcome", "perform"]

CLAIM = (
    "Merged is better and steadier than rp or es alone; the growing window beats fixed ones; momentum features are "
    "needed, time features hardly."
)
NEEDS = ()
FROM_PARTS = True  # variants without a training are left out
HARDLY = 0.1  # of what momentum features are worth: an effect below it counts as hardly any
ALONE = tuple(name for name in ESTIMATORS if name != MERGED)


Table = Mapping[str, np.ndarray]  # [seeds] mean loss at the end of training, by variant


def scores(found: Mapping[str, Sequence[Training]]) -> dict[str, np.ndarray]:
    """The table of these trainings."""
    return {name: np.array([score(one) for one in trained]) for name, trained in found.items()}


def with_all_steps(results: Results) -> dict[str, list[Training]]:
    """The trainings of the variants that have the whole budget."""
    return {name: found for name, found in by_variant(results).items() if not name.endswith(QUARTER)}


def with_a_quarter(results: Results) -> dict[str, list[Training]]:
    """Those with a quarter of it, by the names of the same variants with all."""
    found = by_variant(results).items()
    return {name.removesuffix(QUARTER): trained for name, trained in found if name.endswith(QUARTER)}


def bar(results: Results) -> float:
    """The loss from which on a variant has not begun to learn, which is not the same as worse."""
    classes = next(config_of(one.settings).task.classes for found in by_variant(results).values() for one in found)
    return GUESSING * math.log(classes)


def judged(one: Training) -> np.ndarray:
    """[judged] mean loss over the tasks, along a training."""
    return np.asarray(np.array(one.judged, float).mean(axis=1))


def at_equal_seconds(one: Training, other: Training) -> float | None:
    """Loss of `one` minus that of `other` at the core seconds that both have, interpolated between judged thetas.

    None where one of the two has ended before the other has its first judged theta.
    """
    shared = min(one.judged_seconds[-1], other.judged_seconds[-1])
    if shared < max(one.judged_seconds[0], other.judged_seconds[0]):
        return None
    first, second = (float(np.interp(shared, run.judged_seconds, judged(run))) for run in (one, other))
    return first - second


class Gaps:
    """Mean loss at the end of each variant minus that of merged, of the same seeds."""

    def __init__(self, table: Table, bar: float):
        self._table, self._bar = table, bar
        self.unbegun = [name for name, values in table.items() if not values.mean() < bar]

    def of(self, name: str) -> Interval:
        values = self._table[name]
        return paired(values, self._table[MERGED][: len(values)])

    def above(self, name: str) -> Decision:
        """Whether merged is better: undecided where one of the two is missing or has not begun."""
        if name not in self._table or {MERGED, name} & set(self.unbegun):
            return None
        return self.of(name).above(0)

    def steadier(self, name: str) -> Decision:
        """Whether merged varies less over the seeds: undecided where one of the two is missing or has not begun."""
        if name not in self._table or {MERGED, name} & set(self.unbegun):
            return None
        return steadier(self._table[MERGED], self._table[name])

    def hardly(self, name: str, reference: str) -> Decision:
        """Whether a variant differs by less than a small part of what the reference differs by."""
        if {name, reference} - set(self._table) or {MERGED, name, reference} & set(self.unbegun):
            return None
        return self.of(name).within(HARDLY * abs(self.of(reference).value))


def outcome(results: Results) -> Outcome:
    """Student's tests of paired differences over seeds; Pitman and Morgan's of their variances."""
    found = with_all_steps(results)
    table = scores(found)
    if MERGED not in table:
        raise UserError(
            "fig8: no merged training has ended yet, only trials of the rates: compute more without --so-far"
        )
    gaps = Gaps(table, bar(results))
    windows = fixed_windows(table)
    parts: dict[str, Decision] = {
        "merged better than rp and es alone": every(gaps.above(name) for name in ALONE),
        "and steadier": every(gaps.steadier(name) for name in ALONE),
        "growing window better than fixed": every(gaps.above(name) for name in windows) if windows else None,
        "and steadier than the longest": gaps.steadier(longest(windows)) if windows else None,
        "momentum needed": gaps.above("no momentum"),
        f"time hardly (within {HARDLY:.0%} of momentum)": gaps.hardly("no time", "no momentum"),
    }
    said = "; ".join(f"{name}: {word(decision)}" for name, decision in parts.items())
    numbers = "; ".join(f"{name} {gaps.of(name)}" for name in table if name not in (MERGED, *gaps.unbegun))
    return Outcome(
        every(parts.values()),
        f"{said}. Mean loss at the end of training, minus that of merged ({mean(table[MERGED])}; {len(table[MERGED])} seeds): "
        f"{numbers}. {held(table)}{not_begun(gaps, table)}{spreads(table)}"
        f"{in_seconds(found)}{quarter(with_a_quarter(results))}",
    )


def fixed_windows(table: Table) -> list[str]:
    """The variants whose window does not grow."""
    return [name for name in table if name.startswith("window ")]


def longest(windows: Sequence[str]) -> str:
    """The variant whose window is the whole problem."""
    return max(windows, key=lambda name: int(name.removeprefix("window ")))


def held(table: Table) -> str:
    """How merged with the window held compares with rp and es alone; nothing where it has not been trained."""
    if HELD not in table or not set(ALONE) & set(table):
        return ""
    return f"{HELD.capitalize()}, {better(table, HELD)}. "


def quarter(found: Mapping[str, Sequence[Training]]) -> str:
    """How the estimators compare with a quarter of the budget; nothing where they have not been trained with it."""
    table = scores(found)
    if MERGED not in table or not set(ALONE) & set(table):
        return ""
    merges = [name for name in (MERGED, RECENT) if name in table]
    said = [f"{name} ({mean(table[name])}) {better(table, name)}" for name in merges]
    if min(len(table.get(name, ())) for name in (MERGED, RECENT)) > 1:
        batch, recent = table[MERGED], table[RECENT]
        spread = f"standard deviations {recent.std(ddof=1):.2g} and {batch.std(ddof=1):.2g}"
        said.append(f"{RECENT}, steadier than {MERGED}: {word(steadier(recent, batch))} ({spread})")
    told = " ".join([*(along(found, name) for name in merges), in_seconds(found, merges)])
    return f" With a quarter of the steps, {'; '.join(said)}. {told}"


def along(found: Mapping[str, Sequence[Training]], reference: str) -> str:
    """How rp and es alone compare with a variant at each theta that is judged, at equal steps."""
    steps, said = found[reference][0].steps, list[str]()
    for name in (name for name in ALONE if name in found):
        gaps = np.array([judged(one) - judged(other) for one, other in zip(found[name], found[reference])])
        said += [f"{name} after {at / steps[-1]:.0%} {mean(gap)}" for at, gap in zip(steps, gaps.T)]
    return f"Minus {reference} along the training: {'; '.join(said)}."


def better(table: Table, name: str) -> str:
    """Whether a variant is better than rp and es alone, of the same seeds."""
    others = [other for other in ALONE if other in table]
    found = {other: paired(table[other][: len(table[name])], table[name][: len(table[other])]) for other in others}
    decided = word(every(gap.above(0) for gap in found.values()))
    listed = "; ".join(f"{other} {gap}" for other, gap in found.items())
    return f"better than {' and '.join(others)}: {decided} (minus it, {listed})"


def not_begun(gaps: Gaps, table: Table) -> str:
    if not gaps.unbegun:
        return ""
    listed = ", ".join(f"{name} ({table[name].mean():.3g})" for name in gaps.unbegun)
    return f"Has not begun to learn, within {1 - GUESSING:.0%} of guessing or above: {listed}. "


def spreads(table: Table) -> str:
    """Standard deviations over two seeds and more."""
    windows = fixed_windows(table)
    names = (*ESTIMATORS, *([longest(windows)] if windows else []))
    shown = [(name, table[name]) for name in names if len(table.get(name, ())) > 1]
    listed = ", ".join(f"{name} {values.std(ddof=1):.2g}" for name, values in shown)
    return f"Standard deviation over seeds: {listed}. " if shown else ""


def in_seconds(trained: Mapping[str, Sequence[Training]], references: Sequence[str] = (MERGED,)) -> str:
    """What the estimators cost, and how they compare with these variants at equal cost."""
    found = {name: runs for name, runs in trained.items() if name in (*ESTIMATORS, HELD, RECENT)}
    costs = ", ".join(
        f"{name} {np.median([one.judged_seconds[-1] for one in runs]):.3g}" for name, runs in found.items()
    )
    told = [f"Core seconds of a training (median): {costs}"]
    for reference in references:
        gaps = "; ".join(
            f"{name} {of_equal_seconds(runs, found[reference])}" for name, runs in found.items() if name != reference
        )
        told.append(f"minus {reference} at equal core seconds: {gaps}")
    return f"{'; '.join(told)}."


def of_equal_seconds(one: Sequence[Training], other: Sequence[Training]) -> str:
    """The mean of `at_equal_seconds` over the pairs of the same seed that have it, and how many these are."""
    gaps = [at_equal_seconds(*pair) for pair in zip(one, other)]
    known = np.array([gap for gap in gaps if gap is not None])
    if not len(known):
        return "not known"
    return f"{mean(known)}{'' if len(known) == len(gaps) else f', {len(known)} of {len(gaps)} pairs'}"
