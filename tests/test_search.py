"""Random search: the draws, the rungs, and that the best draw is found and kept."""

import json

import numpy as np
import pytest

from common.configfile import from_dict
from common.optimizer.hand_designed import ADAM8
from workers.evaluation import search
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.items import decode
from workers.evaluation.search import Plan, Rung

PLAN = Plan(12, (Rung(2, 2), Rung(3, 1)), seed=3)


def row(item, losses, test=None):
    runs = len(item["tasks"])
    return {**item, "train": [losses[item["draw"]]] * runs, "test": [(test or losses)[item["draw"]]] * runs}


def test_draws_lie_in_their_ranges_and_follow_from_the_seed():
    thetas = search.draws(Plan(500, (), seed=1), 100)
    np.testing.assert_array_equal(thetas, search.draws(Plan(500, (), seed=1), 100))
    assert not np.array_equal(thetas, search.draws(Plan(500, (), seed=2), 100))
    logs = thetas / np.log(10)
    for name, column in zip(ADAM8, logs.T):
        low, high = search.RANGES[name]
        shift = 2 if name.endswith("decay") else 0  # per step of 100
        assert low - shift <= column.min() < low - shift + 0.1
        assert high - shift - 0.1 < column.max() <= high - shift + 1e-5


def test_a_second_rung_waits_for_the_first_and_takes_the_best_by_either_loss():
    first = search.items(PLAN, 100, [])
    assert [len(first), {item["rung"] for item in first}] == [12, {0}]
    train = {draw: float(draw) for draw in range(12)}
    test = {draw: float(-draw) for draw in range(12)}
    rows = [row(item, train, test) for item in first]
    assert search.items(PLAN, 100, rows[:-1]) == first
    second = search.items(PLAN, 100, rows)[12:]
    assert [item["draw"] for item in second] == [0, 1, 10, 11]
    assert {item["rung"] for item in second} == {1}
    assert not set(second[0]["tasks"]) & set(first[0]["tasks"])


def test_what_survivors_do_next_does_not_change_who_survived():
    """The best of a rung may do badly in the next one; nobody takes its place."""
    plan = Plan(12, (Rung(2, 2), Rung(3, 1), Rung(4, 1)), seed=3)
    rows, good = [], {draw: float(draw) for draw in range(12)}
    for expected in ([*range(12)], [0, 1], [1]):
        items = search.items(plan, 100, rows)[len(rows) :]
        assert [item["draw"] for item in items] == expected
        rows += [row(item, {0: 50.0, 1: 1.0} if item["rung"] == 1 else good) for item in items]
    assert [item["item"] for item in search.items(plan, 100, rows)] == [r["item"] for r in rows]


def test_without_rejection_every_draw_is_run_to_the_end():
    plan = Plan(5, (Rung(4, 1),))
    items = search.items(plan, 100, [])
    assert len(items) == 5 and plan.inner_runs == 20
    assert search.items(plan, 100, [row(item, dict.fromkeys(range(5), 1.0)) for item in items]) == items


def test_the_best_is_judged_by_all_its_runs_and_among_the_last_rung_only():
    first = search.items(PLAN, 100, [])
    losses = {draw: 1.0 + draw for draw in range(12)}
    rows = [row(item, losses) for item in first]
    second = search.items(PLAN, 100, rows)[12:]
    assert [item["draw"] for item in second] == [0, 1]
    late = [row(item, {0: 9.0, 1: 1.5}) for item in second]
    assert search.best(rows + late, "train") == second[1]["theta"]
    assert search.mean_losses(rows + late, "train")[1] == pytest.approx((2 * 2.0 + 3 * 1.5) / 5)


def test_the_plan_counts_its_runs():
    assert Plan(100, (Rung(2, 10), Rung(5, 1))).inner_runs == 100 * 2 + 20 * 5
    assert search.PAPER.inner_runs == 2000 * 80
    assert search.PAPER_REJECTING.inner_runs < search.PAPER.inner_runs / 4
    assert search.MINI.draws >= 200


def test_names_are_idempotent_and_tell_draws_apart():
    names = [item["item"] for item in search.items(PLAN, 100, [])]
    assert len(set(names)) == 12 and names == [item["item"] for item in search.items(PLAN, 100, [])]


def test_a_draw_is_run_on_each_of_its_tasks():
    config = from_dict({"task": {"family": "quadratic", "inner_steps": 20}, "curriculum": {"start": 5, "end": 20}})
    item = json.loads(json.dumps(search.items(PLAN, 20, [])[0]))
    done = search.perform(Evaluator(config), item)
    assert len(done["train"]) == len(done["test"]) == 2 and done["train"][0] != done["train"][1]
    assert decode(done["theta"]).shape == (8,)


def test_rejection_spends_the_paper_runs_on_the_best_and_names_its_plan():
    assert search.rejecting(2000, 80).rungs == (Rung(5, 200), Rung(15, 50), Rung(60, 1))
    assert search.PAPER.inner_runs == 160_000 and search.PAPER_REJECTING.inner_runs == 22_000
    plans = [search.PAPER, search.PAPER_REJECTING, search.MINI, search.rejecting(3, 1), search.keeping_all(3, 1)]
    assert len({plan.name for plan in plans}) == len(plans)


def test_hyper_parameters_are_shown_by_name():
    shown = search.describe(np.log(np.array([0.01, 0.1, 0.001, 1e-8, 1e-3, 1e-4, 1e-5, 1e-6])))
    assert shown.startswith("learning_rate 0.01, 1 - beta1 0.1, 1 - beta2 0.001, epsilon 1e-08")
