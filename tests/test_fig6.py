"""Figure 6: races over steps and over seconds."""

from dataclasses import replace

import pytest
from helpers.figures import result

from workers.figures import fig6
from workers.figures import race as races
from workers.figures.fig6 import Curve, Grid, StepTimes


def curve(shown, task, level, optimizer, end=None):
    """A loss that stays at a level; `end`: on test images after the last step."""
    lines, means = [[level] * 4] * 2, [level] * 2
    test = [[level] * 3 + [level if end is None else end]] * 2
    more = {"steps": [1, 2, 3, 4], "train": lines, "test": test, "mean_train": means, "mean_test": means}
    return result(Curve, shown=shown, task=task, optimizer=optimizer, **more)


def race(learned, slower=1.0, ends=(3.0, None)):
    """Args: ends: final test losses of the optimizers that are learned for train and for validation loss."""
    found = [result(StepTimes, seconds={"learned": slower, "adam": 1, "rmsprop": 1, "sgd": 1, "adam8": 1})]
    for task in range(8):
        for name in ("adam", "rmsprop", "sgd"):
            found += [curve(f"{name} ({t})", task, 2.0 + 0.01 * task, name) for t in ("train", "valid")]
        found += [curve(f"adam8 ({t})", task, 2.0, "adam8") for t in ("train", "valid")]
        for tuned_for, end in zip(("train", "valid"), ends):
            found.append(curve(f"learned ({tuned_for})", task, learned, "learned", end))
    return found


def test_outcome_holds_if_every_baseline_is_beaten():
    assert fig6.outcome(race(1.0)).holds is True
    assert fig6.outcome(race(2.5)).holds is False


def test_outcome_of_few_tasks_is_undecided():
    assert fig6.outcome([one for one in race(1.0) if getattr(one, "task", 0) < 4]).holds is None


@pytest.mark.parametrize(
    "ends, holds", [((3.0, 1.0), (True, True)), ((1.5, 1.6), (False, True)), ((3.0, 2.5), (True, False))]
)
def test_parts_on_test_loss_are_the_papers_sentences(ends, holds):
    """Poor: above the one for validation loss and above the searched Adam; lower: than every baseline."""
    parts = races.on_test_loss(race(1.0, ends=ends))
    assert tuple(part.holds for part in parts) == holds
    assert f"it ends at {ends[0]:.3f}" in parts[0].sentence and f"it ends at {ends[1]:.3f}" in parts[1].sentence
    for part in parts:
        assert part.sentence in fig6.outcome(race(1.0, ends=ends)).sentence


def test_gaps_are_baseline_minus_learned_over_tasks():
    table = races.gaps(race(1.0))
    assert len(table) == 16 and all(gap.wins == 8 for gap in table)
    assert table[0].rival == "adam (train)" and table[0].difference.value == pytest.approx(1.035)


def test_mean_in_time_of_a_slower_step_stretches_the_curve():
    falling = [[4.0, 3.0, 2.0, 1.0]] * 2
    found = [replace(one, train=falling) if isinstance(one, Curve) else one for one in race(1.0, slower=2.0)]
    fast, slow = (races.means_in_time(found, name, "train")[0] for name in ("adam (train)", "learned (train)"))
    assert fast == pytest.approx(4 * 0.25 + 2.5 * 0.75, abs=0.02)
    assert slow == pytest.approx(4 * 0.5 + 3.5 * 0.5, abs=0.02)


def test_best_rate_is_that_of_the_asked_loss():
    grid = result(Grid, optimizer="adam", task=3, rates=[0.1, 1.0], train=[2.0, 1.0], valid=[1.0, 2.0])
    assert [fig6.best_rate([grid], "adam", 3, loss) for loss in ("train", "valid")] == [1.0, 0.1]
