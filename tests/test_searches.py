"""Appendix E: the searches by rungs in blocks of draws, and what the outcome compares."""

import numpy as np
import pytest
from helpers.figures import result

from workers.evaluation import search
from workers.evaluation.search import ADAM, LOSSES, Plan, Rung, SearchResult
from workers.figures import searches
from workers.figures.searches import TRAINED, Draws, Judgement, Training

PLAN = Plan(5, (Rung(2, 1), Rung(3, 1)), family="momentum6")


@pytest.fixture
def scale(monkeypatch):
    small = searches.SCALES["mini"]._replace(plans=(PLAN,), seeds=1, block=2)
    monkeypatch.setitem(searches.SCALES, "mini", small)
    return small


def done(job):
    """Draws that are the better the higher their number."""
    if isinstance(job, searches.TrainingJob):
        return Training.of(job, theta="AAAA", inner_steps=10)
    losses = [10.0 - draw for draw in job.draws]
    return Draws.of(job, train=losses, valid=losses)


def test_blocks_of_draws_are_those_of_the_search(scale):
    jobs = searches.jobs("mini", [])
    first = [job for job in jobs if isinstance(job, searches.DrawsJob)]
    assert [job.draws for job in first] == [[0, 1], [2, 3], [4]] and {job.runs for job in first} == {2}
    results = [done(job) for job in jobs]
    (last,) = [job for job in searches.jobs("mini", results) if getattr(job, "rung", 0) == 1]
    assert (last.draws, last.runs, last.first) == ([4], 3, first[0].first + 2)
    judged = [job for job in searches.jobs("mini", [*results, done(last)]) if isinstance(job, searches.JudgementJob)]
    of_runs = [
        SearchResult(one, *([10.0 - one.draw] * len(one.tasks) for _ in LOSSES)) for one in search.jobs(PLAN, 300, [])
    ]
    best = search.jobs(PLAN, 300, of_runs)[-1]
    assert {job.theta for job in judged if job.contender == "momentum6"} == {best.theta}
    assert {(job.contender, job.tuned_for) for job in judged} == {
        (name, loss) for name in ("momentum6", f"{TRAINED}, seed 0") for loss in LOSSES
    }


def outcome(**means):
    """Of contenders whose mean losses are these, Adam's search at 1."""
    rows = [result(Draws, family=ADAM, runs=2, draws=[0], settings=("mini",)), result(Training, inner_steps=10)]
    for tuned_for in LOSSES:
        known = {"tuned_for": tuned_for, "settings": ("mini",)}
        noise = 0.01 * np.sin(np.arange(8))
        rows.append(result(Judgement, contender=ADAM, losses=1 + 5 * noise, **known))
        for name, mean in means.items():
            rows.append(result(Judgement, contender=name.replace("_", " "), losses=mean + 6 * noise, **known))
    return searches.outcome(rows)


def test_outcome_holds_where_all_are_within_a_twentieth():
    found = outcome(rmsprop7=1.02, momentum6=0.98)
    assert found.holds and "rmsprop7 0.0207 (0.0148 to 0.0266)" in found.sentence


def test_outcome_does_not_hold_where_one_is_beyond():
    found = outcome(rmsprop7=1.02, momentum6=1.2)
    assert found.holds is False and "momentum6 for train loss: does not hold" in found.sentence


def test_seeds_of_an_outer_training_are_averaged():
    rows = [result(Judgement, contender=f"{TRAINED}, seed {k}", tuned_for="train", losses=[k, 2.0]) for k in (0, 1)]
    np.testing.assert_array_equal(searches.losses(rows, "train")[TRAINED], [0.5, 2.0])
