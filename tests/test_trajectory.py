"""Trajectories: what they carry, when a problem ends, and resumption bit for bit from a dump."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tasks

from common.config import CurriculumConfig, EstimatorConfig, TaskConfig
from common.optimizer import make_family
from common.streams import PROBES, PROBLEMS, TRUNCATIONS
from common.task import TaskFamily
from workers.estimators import Perturbation, Truncation, antithetic_pair
from workers.slots import Slots
from workers.trajectory import Sampler
from workers.unroll import OuterLoss, Unroll

THETA = np.array([0.15, 0.5])
CURRICULUM = CurriculumConfig(start=5, end=5, jitter=0.0, stagger=False)  # 5 + 5 + 2 of 12 steps
KINDS = [{}, {"es": "persistent", "use": "es"}, {"es": "noise_reuse", "use": "es"}]


@pytest.fixture(scope="module")
def unroll():
    return Unroll(tasks.task("quadratic"), make_family(tasks.config().optimizer), OuterLoss(), 4)


def sampler(unroll, uid="a worker", curriculum=CURRICULUM, seed=0, **estimator):
    config = tasks.config(curriculum=curriculum, seed=seed, estimator=EstimatorConfig(**estimator))
    return Sampler(config, unroll.task, unroll, uid, 2)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, plain(a), plain(b))


def plain(tree):
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key) else x, tree
    )


def differ(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(plain(a)), jax.tree.leaves(plain(b))))


def run(draw, trajectory, count, first=0):
    advances = []
    for sequence in range(first, first + count):
        advance, trajectory = draw.advance(trajectory, THETA, 0, sequence, with_rp=False)
        advances.append(advance)
    return advances, trajectory


def test_begin_depends_on_seed_worker_index_and_number(unroll):
    first = sampler(unroll).begin(0, 1)
    assert (first.number, first.step) == (1, 0) and first.plus is first.minus and not first.noise.any()
    assert_same(first, sampler(unroll).begin(0, 1))
    others = [
        sampler(unroll).begin(0, 2),
        sampler(unroll).begin(1, 1),
        sampler(unroll, uid="another").begin(0, 1),
        sampler(unroll, seed=1).begin(0, 1),
    ]
    for other in others:
        assert differ(first.problem.data, other.problem.data)
        assert differ(first.problem.key, other.problem.key)
        assert differ(first.plus.w, other.plus.w)


@pytest.mark.parametrize("estimator", KINDS)
def test_advance_depends_on_seed_worker_index_sequence(unroll, estimator):
    draw = sampler(unroll, **estimator)
    start = draw.begin(0, 1)
    es = lambda draw, start, sequence: draw.advance(start, THETA, 0, sequence, with_rp=False)[0].es  # noqa: E731
    one, same, other = (es(draw, start, sequence) for sequence in (3, 3, 4))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert not np.array_equal(one, es(draw, start._replace(slot=1), 3))
    for another in (sampler(unroll, uid="b", **estimator), sampler(unroll, seed=1, **estimator)):
        assert not np.array_equal(one, es(another, start, 3))


def test_noise_is_independent_standard_normal(unroll):
    draw = sampler(unroll)
    noise = np.array([draw.random(i, n, TRUNCATIONS).standard_normal(4) for i in range(4) for n in range(1000)])
    assert np.all(np.abs(noise.mean(0)) < 4 / np.sqrt(4000))
    assert np.all(np.abs(np.cov(noise.T) - np.eye(4)) < 4 * np.sqrt(2 / 4000))
    lag = np.mean(noise[:-1] * noise[1:], axis=0)
    assert np.all(np.abs(lag) < 4 / np.sqrt(4000))
    assert (
        len(
            {
                draw.random(i, n, s).integers(2**62)
                for i in range(3)
                for n in range(3)
                for s in (PROBLEMS, TRUNCATIONS, PROBES)
            }
        )
        == 27
    )


def test_advance_carries_plus_state_to_the_problems_end(unroll):
    draw = sampler(unroll)
    first = draw.begin(0, 1)
    advance, second = draw.advance(first, THETA, 0, 0, with_rp=True)
    assert second.plus is advance.pair.plus.state and second.number == 1 and second.step == 5
    assert differ(advance.pair.plus.state.w, advance.pair.minus.state.w)
    third_advance, third = draw.advance(second, THETA, 0, 1, with_rp=True)
    noise = draw.random(0, 1, TRUNCATIONS).standard_normal(2)
    truncation = Truncation(first.problem, second.plus, second.plus, 5)
    pair = antithetic_pair(unroll, Perturbation(THETA, noise, 0.1), truncation, with_rp=True)
    for name in ("rp", "es"):
        np.testing.assert_array_equal(getattr(third_advance.pair, name), getattr(pair, name))
    last, fresh = draw.advance(third, THETA, 0, 2, with_rp=True)
    assert [(a.start, a.steps, a.finished, a.diverged) for a in (advance, third_advance, last)] == [
        (0, 5, False, False),
        (5, 5, False, False),
        (10, 2, True, False),
    ]
    assert_same(fresh, draw.begin(0, 2))


def test_windows_follow_the_curriculum_with_own_jitter(unroll):
    draw = sampler(unroll, curriculum=CurriculumConfig(start=4, end=8, updates=10, jitter=0.5))
    start = draw.begin(0, 1)

    def steps(version):
        return [draw.advance(start, THETA, version, n, with_rp=False)[0].steps for n in range(60)]

    assert set(steps(0)) == {2, 3, 4, 5, 6} and set(steps(10)) == set(range(4, 13))
    assert np.mean(steps(10)) == pytest.approx(8, abs=4 * 2.5 / np.sqrt(60))


@pytest.mark.parametrize("estimator", [{}, {"es": "persistent", "use": "es"}])
def test_diverged_problem_is_abandoned_and_reported(unroll, estimator):
    draw = sampler(unroll, **estimator)
    advance, fresh = draw.advance(draw.begin(0, 1), np.array([1e6, 0.0]), 0, 0, with_rp=False)
    assert advance.diverged and not advance.finished and advance.pair.plus.last == 10.0
    assert_same(fresh, draw.begin(0, 2))


def test_problem_at_clamp_at_its_end_is_finished(unroll):
    draw = sampler(unroll, curriculum=CurriculumConfig(start=12, end=12, jitter=0.0))
    advance, _ = draw.advance(draw.begin(0, 1), np.array([1e6, 0.0]), 0, 0, with_rp=False)
    assert advance.finished and not advance.diverged


def one_sided(unroll, **estimator):
    """A truncation in which one branch explodes and the other does not, at a theta derived from its noise."""
    draw = sampler(unroll, sigma=100.0, **estimator)
    start = draw.begin(0, 1)
    noise = draw.random(0, 0, TRUNCATIONS).standard_normal(2)
    return (
        draw,
        start,
        THETA + 100.0 * noise,
        THETA - 100.0 * noise,
    )  # at the first theta - is at THETA, at the second +


def test_truncated_es_diverges_by_its_carried_branch(unroll):
    draw, start, plus_far, minus_far = one_sided(unroll)
    far, _ = draw.advance(start, plus_far, 0, 0, with_rp=False)
    near, kept = draw.advance(start, minus_far, 0, 0, with_rp=False)
    assert (far.pair.plus.last, near.pair.minus.last) == (10.0, 10.0)
    assert far.diverged and not near.diverged and kept.number == 1


def test_persistent_pair_diverges_when_both_branches_do(unroll):
    draw, start, plus_far, _ = one_sided(unroll, es="persistent", use="es")
    advance, kept = draw.advance(start, plus_far, 0, 0, with_rp=False)
    assert advance.pair.plus.last == 10.0 > advance.pair.minus.last
    assert not advance.diverged and kept.number == 1


def test_first_problems_end_staggered_later_ones_at_length(unroll):
    step = CurriculumConfig(start=1, end=1, jitter=0.0)
    draws = [sampler(unroll, uid=str(k), curriculum=step, pairs=3) for k in range(8)]
    ends = []
    for index in range(3):
        for draw in draws:
            advances, _ = run(draw, draw.begin(index, 1), 12)
            ends.append(next(k for k, a in enumerate(advances, 1) if a.finished))
            assert 4 * index <= ends[-1] <= 4 * (index + 1)
        later, _ = run(draws[0], draws[0].begin(index, 2), 12)
        assert [a.finished for a in later] == 11 * [False] + [True]
    assert len(set(ends)) >= 8  # of 12 steps


@pytest.mark.parametrize("clamp", [10.0, 0.7, 0.3, 7.3])
@pytest.mark.parametrize("batches", [0, 3])
def test_divergence_is_detected_at_any_float32_clamp(clamp, batches):
    config = tasks.config(estimator=EstimatorConfig(clamp=clamp, outer_batches=batches))
    task = TaskFamily(
        sample=lambda random, split: {"x": np.float32(0)},
        init=lambda key: jnp.ones(1),
        batch=lambda data, key, split: data,
        loss=lambda w, batch: 1e6 * jnp.sum(w**2),
    )
    unroll = Unroll(task, make_family(config.optimizer), OuterLoss("train", batches, clamp), 4)
    draw = Sampler(config, task, unroll, "a worker", 2)
    assert draw.advance(draw.begin(0, 1), THETA, 0, 0, with_rp=False)[0].diverged


def test_persistent_es_carries_both_states_and_noise_sum(unroll):
    draw = sampler(unroll, es="persistent", use="es", sigma=0.1)
    advances, trajectory = run(draw, draw.begin(0, 1), 2)
    noise = [draw.random(0, n, TRUNCATIONS).standard_normal(2) for n in range(3)]
    assert trajectory.plus is advances[1].pair.plus.state and trajectory.minus is advances[1].pair.minus.state
    np.testing.assert_array_equal(trajectory.noise, noise[0] + noise[1])
    last, fresh = draw.advance(trajectory, THETA, 0, 2, with_rp=False)
    truncation = Truncation(trajectory.problem, trajectory.plus, trajectory.minus, 2)
    pair = antithetic_pair(unroll, Perturbation(THETA, noise[2], 0.1), truncation, with_rp=False)
    want = (pair.plus.loss - pair.minus.loss) * sum(noise) / (2 * 0.1) * (2 / 12)
    np.testing.assert_allclose(last.es, want, rtol=1e-12)
    assert last.finished and not fresh.noise.any()


def test_noise_reuse_es_keeps_one_draw_per_problem(unroll):
    draw = sampler(unroll, es="noise_reuse", use="es", sigma=0.1)
    advances, trajectory = run(draw, draw.begin(0, 1), 2)
    noise = draw.random(0, 0, TRUNCATIONS).standard_normal(2)
    np.testing.assert_array_equal(trajectory.noise, noise)
    assert trajectory.minus is advances[1].pair.minus.state
    for advance, steps in zip(advances, (5, 5)):
        want = (advance.pair.plus.loss - advance.pair.minus.loss) * noise / (2 * 0.1) * (steps / 12)
        np.testing.assert_allclose(advance.es, want, rtol=1e-12)
    _, fresh = draw.advance(trajectory, THETA, 0, 2, with_rp=False)
    later, after = draw.advance(fresh, THETA, 0, 3, with_rp=False)
    np.testing.assert_array_equal(after.noise, draw.random(0, 3, TRUNCATIONS).standard_normal(2))
    assert later.start == 0


def reloaded(draw, trajectories, sequence):
    """The trajectories and the sequence number of a dump, loaded by other slots."""
    estimator = dataclasses.replace(draw.config.estimator, pairs=max(len(trajectories), 1))
    slots, others = (Slots(draw.begin, estimator) for _ in range(2))
    for trajectory in trajectories:
        slots.put(trajectory)
    found = others.load(slots.dump(sequence))
    return (others.of(0) if trajectories else list(others._held)), found


@pytest.mark.parametrize("estimator", KINDS)
def test_load_resumes_bit_for_bit_without_compiling(unroll, estimator):
    draw = sampler(unroll, pairs=2, **estimator)
    ends = [run(draw, draw.begin(index, 1), 5)[1] for index in range(2)]
    assert [end.number for end in ends] == [2, 2] and [end.step for end in ends] == [10, 10]
    compiled = unroll._forward._cache_size()
    restored, sequence = reloaded(sampler(unroll, pairs=2, **estimator), ends, 5)
    assert sequence == 5
    assert_same(restored, ends)
    for index in range(2):
        continued, end = run(draw, ends[index], 3, first=5)
        resumed, same = run(draw, restored[index], 3, first=5)
        assert_same([a.es for a in continued], [a.es for a in resumed])
        assert_same(end, same)
    assert unroll._forward._cache_size() == compiled


def test_dump_before_first_sample_is_empty_and_loads(unroll):
    assert reloaded(sampler(unroll), [], 0) == ([], 0)


def test_dump_keeps_half_precision(unroll):
    halved = unroll.task._replace(init=lambda key: {"w": jax.random.normal(key, (2,), jnp.bfloat16)})
    config = tasks.config(curriculum=CURRICULUM)
    draw = Sampler(config, halved, Unroll(halved, make_family(config.optimizer), OuterLoss(), 4), "a worker", 2)
    trajectory = draw.begin(0, 1)
    (restored,), _ = reloaded(draw, [trajectory], 0)
    assert restored.plus.w["w"].dtype == jnp.bfloat16
    assert_same(restored, trajectory)


def test_dump_keeps_random_keys_of_a_models_state(unroll):
    def loss(w, batch, state):
        return unroll.task.loss(w, batch), {"key": jax.random.split(state["key"])[0]}

    stateful = unroll.task._replace(loss=loss, state=lambda key: {"key": key})
    config = tasks.config(curriculum=CURRICULUM)
    draw = Sampler(config, stateful, Unroll(stateful, make_family(config.optimizer), OuterLoss(), 4), "a worker", 2)
    _, trajectory = draw.advance(draw.begin(0, 1), THETA, 0, 0, with_rp=False)
    (restored,), _ = reloaded(draw, [trajectory], 1)
    resumed, continued = (draw.advance(one, THETA, 0, 1, with_rp=False) for one in (restored, trajectory))
    assert resumed[0].pair.plus.loss == continued[0].pair.plus.loss
    keys = [jax.random.key_data(one[1].plus.model["key"]) for one in (resumed, continued)]
    np.testing.assert_array_equal(*keys)


def test_begin_samples_outer_train_tasks_only(unroll):
    asked = []
    task = unroll.task._replace(sample=lambda random, split: asked.append(split) or unroll.task.sample(random, split))
    draw = Sampler(tasks.config(), task, unroll, "a worker", 2)
    for number in range(3):
        draw.begin(0, number)
    assert asked == ["outer_train"] * 3


def test_problem_length_is_inner_steps(unroll):
    task = TaskConfig(family="quadratic", options={"dimension": 2}, inner_steps=7)
    config = dataclasses.replace(sampler(unroll).config, task=task)
    draw = Sampler(config, unroll.task, unroll, "a worker", 2)
    assert [a.steps for a in run(draw, draw.begin(0, 1), 3)[0]] == [5, 2, 5]


def test_problem_lengths_of_a_range_are_drawn_and_kept(unroll):
    task = dataclasses.replace(tasks.TASKS["quadratic"], inner_steps=(3, 60))
    config = tasks.config(curriculum=CURRICULUM, task=task, estimator=EstimatorConfig(es="persistent", use="es"))
    draw = Sampler(config, unroll.task, unroll, "a worker", 2)
    lengths = [draw.begin(0, number).length for number in range(1, 41)]
    assert lengths == [draw.begin(0, number).length for number in range(1, 41)]
    assert min(lengths) < 6 and max(lengths) > 30 and all(3 <= length <= 60 for length in lengths)
    start = draw.begin(0, 1)
    advances, end = run(draw, start, -(-start.length // 5))
    assert sum(a.steps for a in advances) == start.length and advances[-1].finished
    assert (end.number, end.length) == (2, lengths[1])
    difference = advances[0].pair.plus.loss - advances[0].pair.minus.loss
    noise = draw.random(0, 0, TRUNCATIONS).standard_normal(2)
    whole = difference * noise / (2 * config.estimator.sigma) * (5 / start.length)
    np.testing.assert_allclose(advances[0].es, whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "functions"),
    [
        ({}, {"reverse", "on_tape", "start"}),
        ({"probe_rate": 0.5}, {"reverse", "on_tape", "start", "forward"}),
        ({"use": "es"}, {"start", "forward"}),
    ],
)
def test_compilations_are_those_that_a_sample_needs(unroll, estimator, functions):
    assert set(sampler(unroll, **estimator).compilations()) == functions
