"""The benchmark: references that compute what the engine computes, counts by hand, and outcomes that tell the truth."""

import importlib
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tasks

from cluster.actors import bench_learner
from cluster.cli import bench
from common.config import TaskConfig
from common.errors import UserError
from common.networks import conv
from workers.bench import gradients, naive, processes, unrolls
from workers.bench.figure import Figure, Measured, measure, outcome
from workers.bench.problems import PAPER, Case, Noise, learned, subject, widened

TINY = Case(TaskConfig(units=(3, 4), strides=(2, 1), classes=3, batch_size=4), Noise((8, 8, 3), 6))
FIGURE = Figure("name", "what", "x", "module:function", 3, target=2.0)


@pytest.fixture(scope="module")
def tiny():
    return subject(TINY.family(), learned(), segment=4)


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_the_naive_network_is_the_same_network(tiny):
    task = tiny.unroll.task
    batch = task.batch(tiny.problem.data, jax.random.key(0), "train")
    reference = naive.naive_task(task, TINY.task, TINY.data.image_shape)
    close(reference.loss(tiny.state.w, batch), task.loss(tiny.state.w, batch))


def test_scan_loop_and_unroll_take_the_same_steps():
    task = TINY.family()
    ours = subject(task, gradients.adam())
    reference = naive.naive_task(task, TINY.task, TINY.data.image_shape)
    after = ours.unroll.forward(ours.theta, ours.problem, ours.state, 4)[0]
    for run in (naive.scanned, naive.looped):
        before = run(reference, optax.adam(1e-3), ours.problem, 5)(ours.state.w)
        close(before[1:], after, 1e-4)


def test_reverse_over_reverse_has_the_same_outer_gradient(tiny):
    reference = naive.outer_gradient(tiny.unroll.task, learned(), tiny.problem, 6)
    want = reference(tiny.theta, tiny.state.w)
    close(tiny.backward(6), want, 1e-3 * float(jnp.abs(want).max()))
    assert float(jnp.abs(want).max()) > 1e-4


def test_one_tape_replays_to_the_same_gradient(tiny):
    frugal = subject(tiny.unroll.task, learned(), unrolls.OneTape, segment=4)
    np.testing.assert_array_equal(frugal.backward(10), tiny.backward(10))
    assert frugal.unroll._tapes_kept(frugal.state, 3) == 1


def test_operations_of_one_gradient_of_the_papers_network():
    first = 2 * 16 * 16 * (9 * 3) * 32 * 2  # no gradient of the images
    others = 2 * 16 * 16 * (9 * 32) * 32 * 3
    assert gradients.operations(gradients.spec_of(PAPER), 128) == 128 * (first + 2 * others)


def test_gradient_loops_step_downhill_and_push_a_direction():
    w = conv.init(gradients.spec_of(TINY), jax.random.key(2))
    (after, pushed), (_, kept) = (gradients.gradients(TINY, 3, second)() for second in (True, False))
    assert not np.array_equal(after["conv0/kernel"], w["conv0/kernel"])
    close(kept["conv0/kernel"], (0.9 + 0.001) ** 3 * w["conv0/kernel"])
    assert not np.allclose(pushed["conv1/kernel"], kept["conv1/kernel"], atol=1e-6)


def test_repeated_products_keep_their_size():
    assert gradients.product_operations(1024) == 2 * 2 * 1024**3
    assert gradients.product_operations(256) == 128 * 2 * 256**3
    assert gradients.square_product(64)().shape == (64, 64)


@pytest.mark.parametrize(("at_most", "target", "holds"), [(False, 2.0, True), (False, 3.5, False), (True, 2.0, False)])
def test_outcomes_are_medians_with_quartiles(at_most, target, holds):
    figure = FIGURE._replace(at_most=at_most, target=target)
    told = outcome(figure, Measured([1.0, 2.0, 3.0, 4.0, 9.0], {"why": 1}))
    assert (told["value"], told["spread"], told["holds"]) == (3.0, [2.0, 4.0], holds)
    assert outcome(figure._replace(target=None), Measured([1.0]))["holds"] is None
    assert ("holds" if holds else "MISSED") in bench.line(told)


def three_rounds(rounds):
    return Measured([float(rounds)] * rounds)


def test_a_figure_is_found_by_its_place():
    assert measure(FIGURE._replace(where="test_bench:three_rounds"))["value"] == 3.0
    assert measure(FIGURE._replace(where="test_bench:three_rounds"), 5)["value"] == 5.0


def test_every_figure_can_be_measured_and_named():
    assert len({figure.name for figure in bench.FIGURES}) == len(bench.FIGURES)
    for figure in bench.FIGURES:
        module, _, function = figure.where.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert [figure.name for figure in bench.choose(["pair", "batch"])] == ["pair", "batch"]
    with pytest.raises(UserError, match="no figure 'speed'"):
        bench.choose(["speed"])


def test_a_figure_that_fails_says_why():
    told = bench.apart(FIGURE._replace(where="workers.bench.figure:missing", pinned=False))
    assert told["value"] is None and "missing" in told["details"]["failure"]
    assert "not measured" in bench.line(told)
    json.dumps(told)


def test_compilations_are_counted():
    with processes.counted(processes.COMPILED) as events:
        jax.jit(lambda x: 3.25 * x + 1)(jnp.ones(7))
        first = len(events)
        jax.jit(lambda x: 4.25 * x + 1)(jnp.ones(7))
    assert first >= 1 and len(events) > first


def test_windows_of_any_length_compile_nothing():
    task = replace(tasks.TASKS["quadratic"], inner_steps=200)
    told = processes.compilations(1, replace(tasks.config("quadratic"), task=task))
    assert told.values == [0.0] and len(set(told.details["windows"])) > 5


def test_ratios_of_the_engine_are_of_the_right_order(tiny):
    told = unrolls.in_forward_steps(tiny, 12, 3)
    assert len(told.values) == 3 and min(told.values) > 1
    assert 0 < np.median(unrolls.batch_share(3, TINY, steps=20, batches=20).values) < 200


def test_wide_states_hold_the_same_numbers(tiny):
    with jax.enable_x64(True):
        wide = widened(tiny.state)
    assert wide.w["conv0/kernel"].dtype == np.float64 and wide.step.dtype == np.int32
    np.testing.assert_array_equal(wide.w["conv0/kernel"], tiny.state.w["conv0/kernel"])


class FakeRacer:
    def __init__(self, speed):
        self.speed, self.told = speed, []

    def go(self, seconds):
        self.told.append(seconds)

    def result(self):
        return self.speed


def test_a_race_adds_what_its_workers_do():
    racers = [FakeRacer(3.0), FakeRacer(4.0)]
    assert processes.race(racers, 0.5) == 7.0
    assert [racer.told for racer in racers] == [[0.5], [0.5]]


def test_the_learner_takes_and_applies_the_benchmarks_samples():
    told = bench_learner.batch(1)
    assert told.details["updates"] == 2 and 16_000 < told.details["payload_bytes"] < 35_000
    assert told.values[0] > 0
