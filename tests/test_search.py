"""Random search: the draws, the rungs, and that the best draw is found and kept."""

import json

import numpy as np
import pytest

from common.configfile import from_dict
from common.optimizer.hand_designed import ADAM8, MOMENTUM6, RMSPROP7
from workers.evaluation import search
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.jobs import decode
from workers.evaluation.perform import perform
from workers.evaluation.search import Plan, Rung, SearchJob, SearchResult

HYPER_PARAMETERS = {"adam8": ADAM8, "rmsprop7": RMSPROP7, "momentum6": MOMENTUM6}
PLAN = Plan(12, (Rung(2, 2), Rung(3, 1)), seed=3)


def result(job, losses, test=None):
    runs = len(job.tasks)
    return SearchResult(job, (losses[job.draw],) * runs, ((test or losses)[job.draw],) * runs)


def test_theta_has_the_order_of_the_optimizers_hyper_parameters():
    assert {family: tuple(ranges) for family, ranges in search.RANGES.items()} == HYPER_PARAMETERS


@pytest.mark.parametrize("family", HYPER_PARAMETERS)
def test_draws_lie_in_their_ranges_and_follow_from_the_seed(family):
    def draws(seed):
        return search.draws(Plan(500, (), seed=seed, family=family), 100)

    thetas = draws(1)
    np.testing.assert_array_equal(thetas, draws(1))
    assert not np.array_equal(thetas, draws(2))
    for name, column in zip(HYPER_PARAMETERS[family], thetas.T / np.log(10)):
        low, high = search.RANGES[family][name]
        shift = 2 if name.endswith("_decay") else 0  # per step of 100
        assert low - shift <= column.min() < low - shift + 0.1
        assert high - shift - 0.1 < column.max() <= high - shift + 1e-5


def test_second_rung_takes_the_best_of_the_first_by_either_loss():
    first = search.jobs(PLAN, 100, [])
    assert [len(first), {job.rung for job in first}] == [12, {0}]
    train = {draw: float(draw) for draw in range(12)}
    test = {draw: float(-draw) for draw in range(12)}
    results = [result(job, train, test) for job in first]
    assert search.jobs(PLAN, 100, results[:-1]) == first
    second = search.jobs(PLAN, 100, results)[12:]
    assert [job.draw for job in second] == [0, 1, 10, 11]
    assert {job.rung for job in second} == {1}
    assert not set(second[0].tasks) & set(first[0].tasks)


def test_later_results_do_not_change_who_survived():
    """The best of a rung may do badly in the next one; nobody takes its place."""
    plan = Plan(12, (Rung(2, 2), Rung(3, 1), Rung(4, 1)), seed=3)
    results, good = [], {draw: float(draw) for draw in range(12)}
    for expected in ([*range(12)], [0, 1], [1]):
        jobs = search.jobs(plan, 100, results)[len(results) :]
        assert [job.draw for job in jobs] == expected
        results += [result(job, {0: 50.0, 1: 1.0} if job.rung == 1 else good) for job in jobs]
    assert [job.name for job in search.jobs(plan, 100, results)] == [r.job.name for r in results]


def test_plan_of_one_rung_runs_every_draw_to_the_end():
    plan = Plan(5, (Rung(4, 1),))
    jobs = search.jobs(plan, 100, [])
    assert len(jobs) == 5 and plan.inner_runs == 20
    assert search.jobs(plan, 100, [result(job, dict.fromkeys(range(5), 1.0)) for job in jobs]) == jobs


def test_best_is_of_the_last_rung_by_all_its_runs():
    first = search.jobs(PLAN, 100, [])
    losses = {draw: 1.0 + draw for draw in range(12)}
    results = [result(job, losses) for job in first]
    second = search.jobs(PLAN, 100, results)[12:]
    assert [job.draw for job in second] == [0, 1]
    late = [result(job, {0: 9.0, 1: 1.5}) for job in second]
    assert search.best(results + late, "train") == (second[1].theta, (2.0, 2.0, 1.5, 1.5, 1.5))
    assert search.mean_losses(results + late, "train")[1] == pytest.approx((2 * 2.0 + 3 * 1.5) / 5)


def test_plan_counts_its_inner_runs():
    assert Plan(100, (Rung(2, 10), Rung(5, 1))).inner_runs == 100 * 2 + 20 * 5
    assert search.PAPER.inner_runs == 2000 * 80
    assert search.PAPER_REJECTING.inner_runs < search.PAPER.inner_runs / 4
    assert search.MINI.draws >= 200


def test_job_names_are_idempotent_and_distinguish_draws():
    names = [job.name for job in search.jobs(PLAN, 100, [])]
    assert len(set(names)) == 12 and names == [job.name for job in search.jobs(PLAN, 100, [])]


@pytest.mark.parametrize("family, size", [("adam8", 8), ("momentum6", 6)])
def test_perform_runs_a_draw_on_each_of_its_tasks(family, size):
    config = from_dict({"task": {"family": "quadratic", "inner_steps": 20}, "curriculum": {"start": 5, "end": 20}})
    job = search.jobs(PLAN._replace(family=family), 20, [])[0]
    done = json.loads(json.dumps(perform(Evaluator(config), json.loads(json.dumps(job.to_json())))))
    assert len(done["train"]) == len(done["valid"]) == 2 and done["train"][0] != done["train"][1]
    assert decode(done["theta"]).shape == (size,)
    assert SearchResult.from_json(done).job == SearchJob.from_json(done) == job


def test_rejecting_spends_most_runs_on_the_best_draws():
    assert search.rejecting(2000, 80).rungs == (Rung(5, 200), Rung(15, 50), Rung(60, 1))
    assert search.PAPER.inner_runs == 160_000 and search.PAPER_REJECTING.inner_runs == 22_000
    others = [search.rejecting(3, 1, family) for family in search.RANGES]
    plans = [search.PAPER, search.PAPER_REJECTING, search.MINI, search.keeping_all(3, 1), *others]
    assert len({plan.name for plan in plans}) == len(plans)


def test_describe_names_the_hyper_parameters():
    shown = search.describe(np.log(np.array([0.01, 0.1, 0.001, 1e-8, 1e-3, 1e-4, 1e-5, 1e-6])))
    assert shown.startswith("learning_rate 0.01, 1 - beta1 0.1, 1 - beta2 0.001, epsilon 1e-08")
    assert "1 - momentum 0.1," in search.describe(np.log(np.array([0.01, 0.1, 1e-3, 1e-4, 1e-5, 1e-6])), "momentum6")
