"""The evaluator on small problems: known numbers, equal conditions, stopping early."""

import json
from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.configfile import from_dict
from workers.estimators import Truncation, branch
from workers.evaluation.evaluator import MEASURED, Evaluator, accuracy, measure
from workers.evaluation.jobs import TimingJob, UnrollJob, encode
from workers.evaluation.perform import perform

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
    task = {"family": "mlp", "units": [], "batch_size": 8, "inner_steps": 30}
    dataset = {"image_size": 8, "classes": 40, "train_images": 9, "valid_images": 5, "test_images": 5}
    return Evaluator(configuration(task=task, dataset=dataset, optimizer={"family": "mlp", "hidden": 4}))


def learned(evaluator, theta=THETA, task=1000, **options):
    return evaluator.run(UnrollJob("learned", task, theta=encode(theta), **options))


def without_seconds(record):
    return {key: value for key, value in record.items() if key != "seconds_per_step"}


def by_hand(evaluator, rate, momentum, steps, task=1000):
    """Losses after each update, in float64."""
    problem, state, _ = evaluator.start(UnrollJob("learned", task))
    a, c = (np.asarray(problem.data[key], np.float64) for key in ("curvature", "centre"))
    w, trace, losses = np.asarray(state.w["w"], np.float64), 0.0, []
    for _ in range(steps):
        trace = a * (w - c) + momentum * trace
        w = w - rate * trace
        losses.append(0.5 * np.sum(a * (w - c) ** 2))
    return np.array(losses)


def test_mean_and_curve_equal_those_computed_by_hand(quadratic):
    losses = by_hand(quadratic, 0.3, 0.5, 40)
    result = learned(quadratic)
    assert result.means.train == pytest.approx(losses.mean(), rel=1e-5)
    assert result.steps[0] == 2 and result.steps[-1] == 40 and len(result.steps) == 25
    boundaries = [0, *result.steps]
    by_chunk = [losses[a:b].mean() for a, b in pairwise(boundaries)]
    np.testing.assert_allclose(result.curves.train, by_chunk, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(result.curves.test, losses[np.array(result.steps) - 1], rtol=1e-4, atol=1e-9)
    assert result.final_test_accuracy is None


@pytest.mark.heavy
def test_mean_loss_equals_the_training_loss_bit_for_bit(images):
    theta = np.asarray(np.random.default_rng(0).normal(size=31 * 4 + 4 + 10) * 0.5, np.float32)
    result = learned(images, theta)
    problem, state, _ = images.start(UnrollJob("learned", 1000))
    whole = Truncation(problem, state, state, 30)
    for with_gradient in (False, True):
        one = branch(images.unroll("learned"), theta, whole, state, with_gradient=with_gradient)
        assert result.means.train == one.loss


def test_validation_objective_is_measured_at_every_step():
    evaluator = Evaluator(configuration(estimator={"objective": "valid", "outer_batches": 1}))
    result = learned(evaluator)
    assert result.objective == "valid"
    assert result.means.valid == pytest.approx(by_hand(evaluator, 0.3, 0.5, 40).mean(), rel=1e-5)
    assert result.means.train != result.means.valid  # seen at the boundaries only


@pytest.mark.heavy
def test_results_do_not_depend_on_what_ran_before(images):
    jobs = [UnrollJob(name, task, rate=rate) for name in ("adam", "sgd") for task in (1000, 1001) for rate in (0.01, 1)]
    records = [job.to_json() for job in jobs]
    forth = [without_seconds(perform(images, json.loads(json.dumps(record)))) for record in records]
    back = [without_seconds(perform(images, record)) for record in reversed(records)]
    assert forth == back[::-1]


@pytest.mark.heavy
def test_every_optimizer_meets_the_same_problem(images):
    first, others = UnrollJob("learned", 1000), [UnrollJob("adam", 1000, rate=0.1), UnrollJob("sgd", 1000, rate=3.0)]
    assert all(same_problem(images, first, other) for other in others)
    changed = [first._replace(task=1001), first._replace(initialisation=1), first._replace(outer_split="outer_train")]
    assert not any(same_problem(images, first, other) for other in changed)


def same_problem(evaluator, one, other):
    (p, s, k), (q, t, m) = evaluator.start(one), evaluator.start(other)
    pairs = [(p.key, q.key), (k, m)]
    equal = all(jnp.array_equal(jax.random.key_data(a), jax.random.key_data(b)) for a, b in pairs)
    leaves = zip(jax.tree.leaves((p.data, s.w, s.gradient)), jax.tree.leaves((q.data, t.w, t.gradient)))
    return equal and all(jnp.array_equal(a, b) for a, b in leaves)


@pytest.mark.heavy
def test_initialisations_share_their_task(images):
    first, second = (images.start(UnrollJob("learned", 1000, i))[0].data for i in (0, 1))
    assert all(jnp.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)))


def test_diverged_run_counts_the_clamp(quadratic):
    result = learned(quadratic, np.array([50.0, 0.9], np.float32))
    assert result.means.train == pytest.approx(10.0)
    assert result.means.valid == result.means.test == 10.0
    assert all(np.isfinite(result.curves.train + result.curves.valid + result.curves.test))


def test_measured_loss_of_nan_counts_the_clamp(quadratic):
    problem, state, key = quadratic.start(UnrollJob("learned", 1000))
    w = {"w": jnp.full_like(state.w["w"], jnp.nan)}
    model = w, ()
    assert measure(quadratic.task, 7.0, model, problem.data, key).tolist() == [7.0, 7.0, 7.0]
    assert np.isnan(accuracy(quadratic.task, model, problem.data, key))


@pytest.mark.heavy
def test_accuracy_is_a_fraction_of_the_measured_images(images):
    result = learned(images, np.zeros(31 * 4 + 4 + 10, np.float32))
    assert 0 <= result.final_test_accuracy <= 1
    assert result.final_test_accuracy * 8 * MEASURED == pytest.approx(round(result.final_test_accuracy * 16))
    assert result.means.train == pytest.approx(np.log(10), rel=0.2)  # theta = 0 does not move


@pytest.mark.heavy
def test_unroll_is_compiled_once_per_optimizer(images):
    for rate in (0.01, 0.02):
        images.run(UnrollJob("adam", 1000, rate=rate))
    assert images.unroll("adam")._forward._cache_size() == 1


def test_timing_job_times_every_optimizer():
    evaluator = Evaluator(configuration(evaluation={"baselines": ["adam", "sgd"]}))
    result = evaluator.time(TimingJob(encode(THETA), ("adam", "sgd")))
    assert set(result.seconds) == {"learned", "adam", "sgd"}
    for name, (low, high) in result.quartiles.items():
        assert 0 < low <= result.seconds[name] <= high


def test_boundaries_of_few_steps_are_all_steps():
    config = configuration(task={"inner_steps": 3}, curriculum={"start": 1, "end": 3})
    assert Evaluator(replace(config)).boundaries() == [1, 2, 3]
