"""Evaluation on small problems: known numbers, equal conditions, stopping early, and the two stages of items."""

import json
from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.configfile import from_dict
from workers.estimators import branch
from workers.evaluation import evaluator as evaluation
from workers.evaluation import items
from workers.evaluation.evaluator import Evaluator, curves, measure
from workers.evaluation.items import Item

THETA = np.array([0.3, 0.5], np.float32)  # of the sgd family: rate, momentum


def configuration(**sections):
    tree = {
        "task": {"family": "quadratic", "inner_steps": 40},
        "optimizer": {"family": "sgd"},
        "curriculum": {"start": 10, "end": 20},
        "workers": {"segment": 16},
        "evaluation": {"tasks": 2, "initialisations": 3, "baselines": ["sgd"], "rate_count": 3},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return from_dict(tree)


@pytest.fixture(scope="module")
def quadratic():
    return Evaluator(configuration())


@pytest.fixture(scope="module")
def images():
    task = {"family": "mlp", "units": [4], "batch_size": 8, "inner_steps": 30}
    dataset = {"image_size": 8, "classes": 40, "train_images": 9, "valid_images": 5, "test_images": 5}
    return Evaluator(configuration(task=task, dataset=dataset, optimizer={"family": "mlp", "hidden": 4}))


def learned(evaluator, theta=THETA, task=1000, **options):
    return evaluator.run(Item("learned", task, theta=items.encode(theta), **options))


def plain(row):
    return {key: value for key, value in row.items() if key != "seconds_per_step"}


def by_hand(evaluator, rate, momentum, steps, task=1000):
    """Losses after each update, in float64."""
    problem, state, _ = evaluator.start(Item("learned", task))
    a, c = (np.asarray(problem.data[key], np.float64) for key in ("curvature", "centre"))
    w, trace, losses = np.asarray(state.w["w"], np.float64), 0.0, []
    for _ in range(steps):
        trace = a * (w - c) + momentum * trace
        w = w - rate * trace
        losses.append(0.5 * np.sum(a * (w - c) ** 2))
    return np.array(losses)


def test_mean_and_curve_are_those_computed_by_hand(quadratic):
    losses = by_hand(quadratic, 0.3, 0.5, 40)
    row = learned(quadratic)
    assert row["mean_train"] == pytest.approx(losses.mean(), rel=1e-5)
    assert row["steps"][0] == 2 and row["steps"][-1] == 40 and len(row["steps"]) == 25
    borders = [0, *row["steps"]]
    by_chunk = [losses[a:b].mean() for a, b in pairwise(borders)]
    np.testing.assert_allclose(row["train"], by_chunk, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(row["test"], losses[np.array(row["steps"]) - 1], rtol=1e-4, atol=1e-9)
    assert row["final_test_accuracy"] is None


def test_evaluation_at_sigma_zero_is_the_training_loss_bit_for_bit(images):
    theta = np.asarray(np.random.default_rng(0).normal(size=31 * 4 + 4 + 10) * 0.5, np.float32)
    row = learned(images, theta)
    problem, state, _ = images.start(Item("learned", 1000))
    assert row["mean_train"] == branch(images.unroll("learned"), theta, problem, state, 30, with_gradient=False).loss
    assert row["mean_train"] == branch(images.unroll("learned"), theta, problem, state, 30, with_gradient=True).loss


def test_validation_objective_sees_every_step():
    evaluator = Evaluator(configuration(estimator={"objective": "valid", "outer_batches": 1}))
    row = learned(evaluator)
    assert row["objective"] == "valid"
    assert row["mean_valid"] == pytest.approx(by_hand(evaluator, 0.3, 0.5, 40).mean(), rel=1e-5)
    assert row["mean_train"] != row["mean_valid"]  # seen at the borders only


def test_rows_do_not_depend_on_what_ran_before(images):
    records = items.baseline_items(images.config, ["adam"]) + items.baseline_items(images.config, ["sgd"])
    forth = [plain(images.perform(json.loads(json.dumps(record)))) for record in records]
    back = [plain(images.perform(record)) for record in reversed(records)]
    assert forth == back[::-1]


def test_every_optimizer_meets_the_same_problem(images):
    first, others = Item("learned", 1000), [Item("adam", 1000, rate=0.1), Item("sgd", 1000, rate=3.0)]
    assert all(same_problem(images, first, other) for other in others)
    changed = [first._replace(task=1001), first._replace(initialisation=1), first._replace(outer_split="outer_train")]
    assert not any(same_problem(images, first, other) for other in changed)


def same_problem(evaluator, one, other):
    (p, s, k), (q, t, m) = evaluator.start(one), evaluator.start(other)
    pairs = [(p.key, q.key), (k, m)]
    equal = all(jnp.array_equal(jax.random.key_data(a), jax.random.key_data(b)) for a, b in pairs)
    leaves = zip(jax.tree.leaves((p.data, s.w, s.gradient)), jax.tree.leaves((q.data, t.w, t.gradient)))
    return equal and all(jnp.array_equal(a, b) for a, b in leaves)


def test_initialisations_share_their_task(images):
    first, second = (images.start(Item("learned", 1000, i))[0].data for i in (0, 1))
    assert all(jnp.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)))


def test_a_diverged_run_counts_the_clamp(quadratic):
    row = learned(quadratic, np.array([50.0, 0.9], np.float32))
    assert row["mean_train"] == pytest.approx(10.0)
    assert row["mean_valid"] == row["mean_test"] == 10.0
    assert all(np.isfinite(row["train"] + row["valid"] + row["test"]))


def test_a_loss_that_is_not_a_number_counts_the_clamp(quadratic):
    problem, state, key = quadratic.start(Item("learned", 1000))
    w = {"w": jnp.full_like(state.w["w"], jnp.nan)}
    losses, accuracy = measure(quadratic.task, 7.0, w, problem.data, key)
    assert losses.tolist() == [7.0, 7.0, 7.0] and np.isnan(accuracy)


def test_accuracy_is_a_share_of_right_answers(images):
    row = learned(images, np.zeros(31 * 4 + 4 + 10, np.float32))
    assert 0 <= row["final_test_accuracy"] <= 1
    assert row["final_test_accuracy"] * 8 * evaluation.MEASURED == pytest.approx(round(row["final_test_accuracy"] * 16))
    assert row["mean_train"] == pytest.approx(np.log(10), rel=0.2)  # theta = 0 does not move


def test_a_bound_stops_only_what_cannot_end_below_it(quadratic):
    whole = learned(quadratic)["mean_train"]
    kept = learned(quadratic, bound=whole * 1.0001)
    assert kept["stopped"] is None and kept["mean_train"] == whole
    cut = learned(quadratic, bound=whole * 0.5)
    assert cut["stopped"] < 40 and cut["stopped"] == cut["steps"][-1]
    assert whole * 0.5 < cut["mean_train"] <= whole


def test_the_mean_of_a_stopped_run_counts_nothing_for_the_missing_steps():
    row = curves("train", [10, 20], [np.full(10, 4.0, np.float32)], [(np.array([1.0, 2.0, 3.0]), np.float32(0.5))])
    assert row["mean_train"] == 2.0 and row["train"] == [4.0] and row["mean_test"] == 3.0


def test_names_tell_items_apart_and_nothing_else():
    config = configuration(evaluation={"baselines": ["adam", "sgd"]})
    listed = items.evaluation_items(config, THETA, 5)
    names = [item["item"] for item in listed]
    assert len(set(names)) == len(names) == 2 * (1 + 2 * 3) + 1
    assert names == [item["item"] for item in items.evaluation_items(config, THETA, 6)]
    assert set(names) & {item["item"] for item in items.learned_items(config, THETA + 1)} == set()
    assert items.from_record(json.loads(json.dumps(listed[0]))).record() == listed[0]


def test_items_of_one_task_stand_together():
    tasks = [item["task"] for item in items.evaluation_items(configuration(), THETA) if item["kind"] == "unroll"]
    assert tasks == sorted(tasks) and set(tasks) == {1000, 1001}


def test_theta_travels_exactly():
    theta = np.random.default_rng(1).normal(size=9).astype(np.float32)
    np.testing.assert_array_equal(items.decode(items.encode(theta)), theta)
    assert items.sha256(items.encode(theta)) != items.sha256(items.encode(theta[::-1]))


def test_the_second_stage_refines_the_grid_and_adds_initialisations():
    config = configuration(evaluation={"baselines": ["adam"], "rate_count": 3})  # 1e-4, 0.0316, 10
    evaluator = Evaluator(config)
    rows = [evaluator.perform(item) for item in items.evaluation_items(config, THETA, 5)]
    second = items.second_items(config, rows, THETA)
    fine = [item for item in second if item["bound"] is not None]
    bands = [item for item in second if item["initialisation"] > 0]
    assert len(fine) == 2 * 2 and {item["rate"] for item in fine} == {0.00177828, 0.562341}
    assert len(bands) == len(second) - len(fine) == 2 * 2 * 2
    assert {item["version"] for item in bands if item["optimizer"] == "learned"} == {5}
    for item in bands:
        if item["optimizer"] == "adam":
            own = {row["rate"]: row["mean_train"] for row in rows if row.get("task") == item["task"] and row["rate"]}
            assert item["rate"] == min(own, key=own.__getitem__)
    assert all(evaluator.perform(item)["mean_train"] > 0 for item in second)


def test_a_segment_is_compiled_once_per_optimizer(images):
    for rate in (0.01, 0.02):
        images.run(Item("adam", 1000, rate=rate))
    assert images.unroll("adam")._forward._cache_size() == 1


def test_timing_is_an_item_of_its_own():
    evaluator = Evaluator(configuration(evaluation={"baselines": ["adam", "sgd"]}))
    row = evaluator.perform(items.timing_item(evaluator.config, THETA))
    assert set(row["seconds"]) == {"learned", "adam", "sgd"}
    for name, (low, high) in row["quartiles"].items():
        assert 0 < low <= row["seconds"][name] <= high


def test_outer_train_tasks_can_be_asked_for(images):
    listed = items.learned_items(images.config, THETA, outer_split="outer_train", tasks=[7])
    assert [(item["task"], item["outer_split"]) for item in listed] == [(7, "outer_train")]
    assert listed[0]["item"] != items.learned_items(images.config, THETA, tasks=[7])[0]["item"]


def test_few_steps_give_few_points():
    config = configuration(task={"inner_steps": 3}, curriculum={"start": 1, "end": 3})
    assert Evaluator(replace(config)).borders() == [1, 2, 3]
