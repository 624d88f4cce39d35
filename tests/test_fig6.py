"""Figure 6: races over steps and over seconds."""

from dataclasses import replace

import pytest
from helpers.figures import result

from common.optimizer import make_family
from workers.evaluation.jobs import decode
from workers.figures import catalogue, fig6
from workers.figures import race as races
from workers.figures.fig6 import Curve, Grid, StepTimes
from workers.figures.figure import config_of
from workers.figures.pictures.fig6 import draw


def curve(shown, task, level, optimizer, end=None):
    """A loss that stays at a level; `end`: on test images after the last step."""
    means, test = [level] * 2, [level] * 3 + [level if end is None else end]
    more = {"steps": [1, 2, 3, 4], "train": [level] * 4, "test": test, "mean_train": means, "mean_test": means}
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
    falling = [4.0, 3.0, 2.0, 1.0]
    found = [replace(one, train=falling) if isinstance(one, Curve) else one for one in race(1.0, slower=2.0)]
    shown = ("adam (train)", "learned (train)")
    fast, slow = (races.means_in_time(found, name, "adam", "train")[0] for name in shown)
    assert fast == pytest.approx(4 * 0.25 + 2.5 * 0.75, abs=0.02)
    assert slow == pytest.approx(4 * 0.5 + 3.5 * 0.5, abs=0.02)


def test_seconds_are_those_that_the_baseline_takes():
    """A baseline of half the speed leaves the learned optimizer twice the steps."""
    falling = [4.0, 3.0, 2.0, 1.0]
    found = [replace(one, train=falling) if isinstance(one, Curve) else one for one in race(1.0)]
    times = result(StepTimes, seconds={"learned": 1, "adam": 0.5, "rmsprop": 1, "sgd": 1, "adam8": 1})
    found[0] = times
    at = {rival: races.means_in_time(found, "learned (train)", rival, "train")[0] for rival in ("adam", "sgd")}
    assert at["adam"] == pytest.approx(4 * 0.5 + 3.5 * 0.5, abs=0.02)
    assert at["sgd"] == pytest.approx(4 * 0.25 + 2.5 * 0.75, abs=0.02)


def test_step_times_are_medians_of_the_timings():
    found = [result(StepTimes, seconds={"learned": spent, "adam": 1.0}) for spent in (3.0, 1.0, 8.0)]
    assert races.seconds(found) == {"learned": 3.0, "adam": 1.0}


def test_included_optimizer_has_verdicts_of_its_own():
    found = race(1.0)
    found += [curve(f"included ({t})", task, 3.0, "learned") for task in range(8) for t in ("train", "valid")]
    told = fig6.outcome(found)
    assert (
        told.holds is False
        and "learned (train) better than every baseline on train loss over steps: holds" in told.sentence
    )
    assert "included (train) better than every baseline on train loss over steps: does not hold" in told.sentence
    assert "included for validation loss, converges to a lower test loss" in told.sentence


def test_included_against_grids_alone_is_judged_and_drawn():
    """As at the scale `headline`, which has no search and does not train."""
    found = [one for one in race(1.0, ends=(3.0, 1.0)) if getattr(one, "optimizer", "") != "adam8"]
    renamed = [
        replace(one, shown=one.shown.replace("learned", "included")) if isinstance(one, Curve) else one for one in found
    ]
    told = fig6.outcome(renamed)
    assert told.holds is True and " above adam (valid): holds" in told.sentence
    drawn = draw(renamed)
    assert drawn.axes[4].get_xlabel() == "baseline - included (train), mean train loss"


def test_scale_of_included_optimizers_has_grids_and_no_search():
    listed = fig6.jobs("headline", [])
    assert len(listed) == 36 and all(isinstance(job, fig6.GridJob) for job in listed)
    assert catalogue.needs("fig6", "headline") == ()


def test_included_theta_fits_the_optimizer_of_the_scale():
    """1,090 numbers: the paper's network of 32 units."""
    thetas = [decode(fig6.included_theta(name)) for name in fig6.SCALES["wallclock"].included.values()]
    assert [len(theta) for theta in thetas] == [1090, 1090]
    assert make_family(config_of(("wallclock",)).optimizer).size == 1090


def test_curves_are_kept_where_they_are_drawn():
    kept = {
        shown: races.drawn(curve(shown, 0, 1.0, name))
        for shown, name in (("sgd (valid)", "sgd"), ("learned (train)", "learned"))
    }
    assert kept == {"sgd (valid)": ("test",), "learned (train)": ("train", "test")}


def test_scale_over_seconds_searches_three_families():
    listed = fig6.jobs("wallclock", [])
    families = [job.family for job in listed if isinstance(job, fig6.DrawJob)]
    assert {name: families.count(name) for name in families} == {"adam8": 200, "rmsprop7": 200, "momentum6": 200}
    assert len({job.name for job in listed}) == len(listed) == 720


def test_timings_run_one_after_the_other():
    chosen, found = fig6.SCALES["wallclock"]._replace(plans=()), []
    for count in (1, 2, 3, 3):
        listed = fig6.timing_jobs(chosen, found, "theta")
        assert len(listed) == count
        found = [StepTimes.of(job, seconds={}, quartiles={}) for job in listed]


def test_best_rate_is_that_of_the_asked_loss():
    grid = result(Grid, optimizer="adam", task=3, rates=[0.1, 1.0], train=[2.0, 1.0], valid=[1.0, 2.0])
    assert [fig6.best_rate([grid], "adam", 3, loss) for loss in ("train", "valid")] == [1.0, 0.1]
