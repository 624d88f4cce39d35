"""Figure 8: what ablations show, and equal budgets of inner steps."""

from dataclasses import fields

import numpy as np
import pytest
from helpers.figures import result

from common.configfile import load
from common.errors import UserError
from workers.figures import ablations, fig8
from workers.figures.ablations import Training

NOTHING = {f.name: [] for f in fields(Training) if f.name not in {g.name for g in fields(ablations.TrainingJob)}} | {
    "judged": [[1.0]]
}
PLACES = (-1.5, -1.0, 0.0, 0.5, 1.0, 1.0)  # of the seeds around the mean


def ended(variant, seed, loss):
    known = {"settings": ("mini",), "judged_seconds": [10.0], "core_seconds": [10.0], "steps": [8], "trial": False}
    return result(Training, variant=variant, seed=seed, judged=[[loss]], **known)


def results(**means):
    base = {"merged": 1.0, "rp only": 2.0, "es only": 1.5, "window 6": 1.4, "no momentum": 1.9, "no time": 1.01}
    wobble = {"merged": 0.01, "rp only": 0.2, "es only": 0.1}
    return [
        ended(name, k, mean + wobble.get(name, 0.02) * place)
        for name, mean in {**base, **{n.replace("_", " "): v for n, v in means.items()}}.items()
        for k, place in enumerate(PLACES)
    ]


def test_outcome_holds_if_every_part_does():
    assert fig8.outcome(results()).holds


@pytest.mark.parametrize("worse", [{"rp_only": 0.5}, {"window_6": 0.8}, {"no_momentum": 0.9}])
def test_outcome_does_not_hold_if_one_part_does_not(worse):
    assert fig8.outcome(results(**worse)).holds is False


def test_outcome_names_the_part_that_does_not_hold():
    sentence = fig8.outcome(results(no_time=2.0)).sentence
    assert "momentum): does not hold" in sentence and "momentum needed: holds" in sentence


def test_outcome_within_the_noise_is_undecided():
    """merged and rp differ in no more than chance would give; two standard deviations of 0.040 and 0.039 do as well."""
    noise = np.array([0.04, -0.03, 0.05, -0.05, -0.02, 0.03])
    found = [one for one in results() if one.variant != "rp only"]
    found += [ended("rp only", k, 1.0 + gap) for k, gap in enumerate(noise)]
    outcome = fig8.outcome(found)
    assert outcome.holds is None and "rp and es alone: undecided" in outcome.sentence


def test_variant_that_guesses_is_not_called_worse():
    outcome = fig8.outcome(results(window_6=2.25))
    assert outcome.holds is None and "growing window better than fixed: undecided" in outcome.sentence
    assert "Has not begun to learn, within 5% of guessing or above: window 6 (2.25)" in outcome.sentence
    assert "window 6 1." not in outcome.sentence and "than the longest: undecided" in outcome.sentence


def test_estimators_compare_at_equal_core_seconds():
    """merged learns 1 in 20 core seconds, es 0.5 in 5: at 5 core seconds merged is at 0.75 of its way, and worse by 0.25."""
    found = [
        result(Training, variant="merged", seed=0, judged=[[2.0], [1.0]], judged_seconds=[0.0, 20.0]),
        result(Training, variant="es only", seed=0, judged=[[2.0], [1.5]], judged_seconds=[0.0, 5.0]),
    ]
    assert fig8.at_equal_seconds(found[1], found[0]) == pytest.approx(1.5 - 1.75)


def test_a_loss_that_is_not_yet_known_is_not_compared():
    """es has ended before merged is judged: what merged was at then is known of one pair of two."""
    early = [ended("es only", seed, 1.5) for seed in (0, 1)]
    late = [
        result(Training, variant="merged", seed=0, judged=[[1.0]], judged_seconds=[20.0]),
        result(Training, variant="merged", seed=1, judged=[[1.0]], judged_seconds=[10.0]),
    ]
    assert [fig8.at_equal_seconds(*pair) for pair in zip(early, late)] == [None, 0.5]
    told = fig8.in_seconds({"es only": early, "merged": late})
    assert "es only 0.5 (no interval: fewer than 5 samples), 1 of 2 pairs" in told
    assert "es only not known" in fig8.in_seconds({"es only": early[:1], "merged": late[:1]})


def test_core_seconds_are_those_of_the_whole_training():
    """The thinned list of a history may lack the last update."""
    trained = [result(Training, variant="merged", seed=0, judged=[[1.0]], judged_seconds=[20.0], core_seconds=[19.0])]
    assert "merged 20" in fig8.in_seconds({"merged": trained})


def test_whole_windows_are_compared_by_their_variance():
    """The paper's second sentence on fixed windows: those of the whole problem have a high variance."""
    calm = [one for one in results() if one.variant != "window 6"]
    calm += [ended("window 300", k, 1.4) for k in range(6)] + [ended("window 30", k, 1.4 + k) for k in range(6)]
    outcome = fig8.outcome(calm)
    assert "and steadier than the longest: does not hold" in outcome.sentence and "window 300 0" in outcome.sentence


def test_variant_not_run_leaves_its_part_undecided():
    outcome = fig8.outcome([one for one in results() if one.variant != "no momentum"])
    assert outcome.holds is None and "momentum needed: undecided" in outcome.sentence


def listed(scale, ended_at=lambda job: 1.0):
    """All jobs, where each of them ends at the loss `ended_at(job)`."""
    jobs, count = fig8.jobs(scale, []), 0
    while len(jobs) > count:
        count = len(jobs)
        jobs = fig8.jobs(scale, [Training.of(job, **{**NOTHING, "judged": [[ended_at(job)]]}) for job in jobs])
    return jobs


def trainings(scale, *, trial):
    """The trainings, or the trials, where all trials end at the same loss."""
    return [job for job in listed(scale) if job.trial is trial]


@pytest.mark.parametrize("scale", ["mini", "long", "paper"])
@pytest.mark.parametrize("trial", [True, False])
def test_trainings_end_with_one_budget_of_inner_steps(scale, trial):
    for job in trainings(scale, trial=trial):
        outer = load(job.settings[0], job.settings[1:]).outer
        share = 0.25 if trial or job.variant in ablations.SHORTER else 1
        assert outer.inner_steps == 2 * fig8.SCALES[scale].budget * share == job.steps[-1]


def test_trials_share_no_seed_and_no_task_with_the_result():
    trials, kept = trainings("mini", trial=True), trainings("mini", trial=False)
    assert not {job.seed for job in trials} & {job.seed for job in kept}
    assert not set(trials[0].tasks) & set(kept[0].tasks)
    assert len(trials) == 3 * len({job.variant for job in kept})


def test_each_variant_is_trained_at_the_rate_of_its_best_trial():
    best = {"merged": 0.01, "rp only": 0.001}
    for job in listed("mini", ended_at=lambda job: abs(job.rate - best.get(job.variant, 0.003))):
        if not job.trial:
            assert job.rate == best.get(job.variant, 0.003)


def test_ablations_begin_after_the_estimators_have_ended():
    jobs, known = fig8.jobs("long", []), []
    while {job.variant for job in jobs} <= set(ablations.ESTIMATORS):
        assert len(known) < len(jobs)
        known.append(Training.of(jobs[len(known)], **NOTHING))
        jobs = fig8.jobs("long", known)
    assert len(known) == 3 * (3 + fig8.SCALES["long"].seeds)  # trials of three rates, and the seeds
    assert {job.variant for job in jobs[len(known) :]} == set(ablations.SHORTER)


def test_a_quarter_of_the_budget_has_the_rates_of_the_trials():
    """No trials of its own: those of the estimators have as many steps."""
    best = {"merged": 0.01, "rp only": 0.003, "es only": 0.03}
    jobs = listed("long", ended_at=lambda job: abs(job.rate - best.get(job.variant, 0.03)))
    shorter = [job for job in jobs if job.variant in ablations.SHORTER]
    best |= {ablations.RECENT: best["merged"]}
    assert {job.variant.removesuffix(ablations.QUARTER): job.rate for job in shorter} == best
    assert len(shorter) == 4 * fig8.SCALES["long"].quarter_seeds and not any(job.trial for job in shorter)
    trial = next(job for job in jobs if job.trial and job.variant == "merged")
    assert next(job.steps for job in shorter)[-1] == trial.steps[-1]


def test_trial_that_diverges_is_never_the_best():
    trials = [job for job in fig8.jobs("mini", []) if job.trial and job.variant == "merged"]
    losses = {0.001: [[np.nan]], 0.003: [["inf"]], 0.01: [[9.0]]}
    ended = [Training.of(job, **{**NOTHING, "judged": losses[job.rate]}) for job in trials]
    assert ablations.best_rate(trials, ended) == 0.01


def test_variants_are_listed_in_one_order_whatever_the_rows():
    rows = [ended(name, 0, 1.0) for name in ("window 30", "no time", "es only", "window 3", "merged")]
    assert list(ablations.by_variant(rows)) == ["merged", "es only", "window 3", "window 30", "no time"]
    assert {name for name in ablations.variants(fig8.SCALES["long"])} == set(
        ablations.by_variant([ended(name, 0, 1.0) for name in ablations.variants(fig8.SCALES["long"])])
    )


def test_seeds_are_paired_while_some_trainings_have_not_ended():
    """es has no seed 1 yet: only seed 0 of both counts, where the difference is 0.5."""
    rows = [ended("merged", seed, 1.0 + seed) for seed in range(5)] + [ended("es only", k, 1.5 + k) for k in (0, 2, 3)]
    assert [one.seed for one in ablations.by_variant(rows)["es only"]] == [0]
    assert "es only 0.5" in fig8.outcome(rows).sentence and "and steadier: undecided" in fig8.outcome(rows).sentence


def test_merged_with_the_window_held_is_compared():
    losses = {"merged": 0.55, "rp only": 0.8, "es only": 0.5, ablations.HELD: 0.45}
    rows = [ended(name, seed, loss + 0.001 * seed) for name, loss in losses.items() for seed in range(5)]
    said = fig8.outcome(rows).sentence
    assert "Merged, window held, better than rp only and es only: holds (minus it, rp only 0.35" in said
    assert fig8.held({"merged": np.ones(5), ablations.HELD: np.ones(5)}) == ""


def test_a_quarter_of_the_budget_has_a_sentence_of_its_own():
    losses = {"merged": 0.5, "es only": 0.5} | dict(zip(ablations.SHORTER, (0.54, 0.8, 0.65, 0.66)))
    rows = [ended(name, seed, loss + 0.001 * seed) for name, loss in losses.items() for seed in range(5)]
    said, alone = fig8.outcome(rows).sentence, fig8.outcome(rows[:10]).sentence
    assert "With a quarter of the steps, merged (0.542 (0.54 to 0.544)) better than rp only and es only: holds" in said
    assert "; merged, recent variance (0.662 (0.66 to 0.664)) better than rp only and es only: does not hold" in said
    assert "Minus merged along the training: rp only after 100% 0.26 (" in said
    assert "merged, recent variance, steadier than merged: undecided (standard deviations 0.0016 and 0.0016)" in said
    assert said.startswith(alone) and "quarter" not in alone


def test_outcome_of_trials_alone_is_a_user_error():
    with pytest.raises(UserError, match="no merged training has ended yet"):
        fig8.outcome([one for one in results() if one.variant != "merged"])
