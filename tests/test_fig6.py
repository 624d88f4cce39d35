"""Figure 6: races over steps and over seconds."""

from dataclasses import replace

import pytest
from helpers.figures import result

from workers.figures import fig6
from workers.figures.fig6 import Curve, Grid, StepTimes


def curve(shown, task, level, optimizer):
    lines, means = [[level] * 4] * 2, [level] * 2
    more = {"steps": [1, 2, 3, 4], "train": lines, "test": lines, "mean_train": means, "mean_test": means}
    return result(Curve, shown=shown, task=task, optimizer=optimizer, **more)


def race(learned, slower=1.0):
    found = [result(StepTimes, seconds={"learned": slower, "adam": 1, "rmsprop": 1, "sgd": 1, "adam8": 1})]
    for task in range(8):
        for name in ("adam", "rmsprop", "sgd"):
            found += [curve(f"{name} ({t})", task, 2.0 + 0.01 * task, name) for t in ("train", "valid")]
        found += [curve(f"adam8 ({t})", task, 2.0, "adam8") for t in ("train", "valid")]
        found += [curve(f"learned ({t})", task, learned, "learned") for t in ("train", "valid")]
    return found


def test_outcome_holds_if_every_baseline_is_beaten():
    assert fig6.outcome(race(1.0)).holds
    assert not fig6.outcome(race(2.02)).holds


def test_gaps_are_baseline_minus_learned_over_tasks():
    table = fig6.gaps(race(1.0))
    assert len(table) == 16 and all(gap.wins == 8 for gap in table)
    assert table[0].rival == "adam (train)" and table[0].difference.value == pytest.approx(1.035)


def test_mean_in_time_of_a_slower_step_stretches_the_curve():
    falling = [[4.0, 3.0, 2.0, 1.0]] * 2
    found = [replace(one, train=falling) if isinstance(one, Curve) else one for one in race(1.0, slower=2.0)]
    fast, slow = (fig6.means_in_time(found, name, "train")[0] for name in ("adam (train)", "learned (train)"))
    assert fast == pytest.approx(4 * 0.25 + 2.5 * 0.75, abs=0.02)
    assert slow == pytest.approx(4 * 0.5 + 3.5 * 0.5, abs=0.02)


def test_best_rate_is_that_of_the_asked_loss():
    grid = result(Grid, optimizer="adam", task=3, rates=[0.1, 1.0], train=[2.0, 1.0], valid=[1.0, 2.0])
    assert [fig6.best_rate([grid], "adam", 3, loss) for loss in ("train", "valid")] == [1.0, 0.1]
