"""The benchmark: reference implementations equal the engine, counts equal counts by hand, outcomes are correct."""

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
from workers.bench import figure, gradients, naive, processes, unrolls
from workers.bench.figure import Figure, Measured, measure, outcome
from workers.bench.problems import PAPER, Case, Noise, learned, subject, widened

TINY = Case(TaskConfig(units=(3,), strides=(2,), classes=3, batch_size=4), Noise((8, 8, 3), 6))
FIGURE = Figure("name", "what", "x", "module:function", 3, target=2.0)


@pytest.fixture(scope="module")
def tiny():
    return subject(TINY.family(), learned(), segment=4)


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.heavy
def test_naive_task_has_the_loss_of_the_task(tiny):
    task = tiny.unroll.task
    batch = jax.jit(lambda data, key: task.batch(data, key, "train"))(tiny.problem.data, jax.random.key(0))
    reference = naive.naive_task(task, TINY.task, TINY.data.image_shape)
    close(jax.jit(reference.loss)(tiny.state.w, batch), jax.jit(task.loss)(tiny.state.w, batch))


@pytest.mark.heavy
def test_naive_loop_takes_the_steps_of_unroll():
    task = TINY.family()
    ours = subject(task, gradients.adam())
    reference = naive.naive_task(task, TINY.task, TINY.data.image_shape)
    after = ours.unroll.forward(ours.theta, ours.problem, ours.state, 4)[0]
    close(naive.looped(reference, optax.adam(1e-3), ours.problem, 5)(ours.state.w)[1:], after, 1e-4)


@pytest.mark.heavy
def test_one_tape_recomputes_to_the_same_gradient(tiny):
    one_tape = subject(tiny.unroll.task, learned(), unrolls.OneTape, segment=4)
    np.testing.assert_array_equal(one_tape.backward(10), tiny.backward(10))
    assert len(one_tape.unroll._blank) == 1


@pytest.mark.heavy
def test_recomputed_activations_give_the_gradient_of_kept(tiny):
    recomputing = subject(tiny.unroll.task, learned(), unrolls.Recomputing, segment=4)
    want = tiny.backward(6)
    close(recomputing.backward(6), want, 1e-4 * float(jnp.abs(want).max()))
    assert tiny.unroll._blank[0].activations and not recomputing.unroll._blank[0].activations


def test_operations_of_papers_network_equal_a_count_by_hand():
    first = 2 * 16 * 16 * (9 * 3) * 32 * 2  # no gradient of the images
    others = 2 * 16 * 16 * (9 * 32) * 32 * 3
    assert gradients.operations(gradients.spec_of(PAPER), 128) == 128 * (first + 2 * others)


@pytest.mark.heavy
def test_gradients_update_w_in_each_step():
    w = conv.init(gradients.spec_of(TINY), jax.random.key(2))
    one, three = (gradients.gradients(TINY, steps)() for steps in (1, 3))
    assert not np.array_equal(one["conv0/kernel"], w["conv0/kernel"])
    assert not np.array_equal(three["conv0/kernel"], one["conv0/kernel"])


@pytest.mark.heavy
def test_direct_convolutions_give_the_gradient_of_winograds():
    case = Case(TaskConfig(units=(16, 16), strides=(1, 1), classes=3, batch_size=4), Noise((8, 8, 3), 6))
    direct, ours = gradients.direct_gradients(case, 1)(), gradients.gradients(case, 1)()
    assert not np.array_equal(direct["conv1/kernel"], ours["conv1/kernel"])
    for name in ours:
        close(direct[name], ours[name])


def test_square_product_repeats_and_keeps_its_size():
    assert gradients.product_operations(1024) == 2 * 2 * 1024**3
    assert gradients.product_operations(256) == 128 * 2 * 256**3
    assert gradients.square_product(64)().shape == (64, 64)


@pytest.mark.parametrize(("at_most", "target", "holds"), [(False, 2.0, True), (False, 3.5, False), (True, 2.0, False)])
def test_outcome_is_median_with_quartiles(at_most, target, holds):
    limited = FIGURE._replace(at_most=at_most, target=target)
    result = outcome(limited, Measured([1.0, 2.0, 3.0, 4.0, 9.0], {"why": 1}))
    assert (result.value, result.spread, result.holds) == (3.0, (2.0, 4.0), holds)
    assert outcome(limited._replace(target=None), Measured([1.0])).holds is None
    assert ("holds" if holds else "MISSED") in bench.line(result)


def three_rounds(rounds):
    return Measured([float(rounds)] * rounds)


def test_measure_finds_function_and_rounds():
    assert measure(FIGURE._replace(where="test_bench:three_rounds")).value == 3.0
    assert measure(FIGURE._replace(where="test_bench:three_rounds"), 5).value == 5.0


def test_figures_have_unique_names_and_functions():
    assert len({one.name for one in bench.FIGURES}) == len(bench.FIGURES)
    for one in bench.FIGURES:
        module, _, function = one.where.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert [one.name for one in bench.choose(["pair", "memory"])] == ["pair", "memory"]
    with pytest.raises(UserError, match="no figure 'speed'"):
        bench.choose(["speed"])


def test_failed_figure_reports_its_error_and_others_go_on():
    missing = FIGURE._replace(where="workers.bench.figure:missing")
    first, second = bench.measured([missing, FIGURE._replace(name="other", where="workers.bench.comparison:Answer")])
    assert first.value is None and "missing" in first.details["failure"] and first.figure == "name"
    assert second.value is None and "outcomes" in second.details["failure"] and second.figure == "other"
    assert "not measured" in bench.line(first)
    json.dumps(first._asdict())


def test_measured_shares_a_process_among_pinned_neighbours(monkeypatch):
    together = []
    monkeypatch.setattr(bench, "in_processes", lambda figures: together.append([one.name for one in figures]) or [])
    names = ["gradient-paper", "rounding", "two-workers", "first-update", "learner-batch"]
    assert list(bench.measured(bench.choose(names))) == []
    assert together == [["gradient-paper", "rounding"], ["two-workers"], ["first-update"], ["learner-batch"]]


def test_quick_figures_are_a_part_of_all():
    quick = bench.choose([], quick=True)
    assert 3 <= len(quick) < len(bench.FIGURES) / 2 and all(one.quick for one in quick)
    with pytest.raises(UserError, match="--quick"):
        bench.choose(["pair"], quick=True)


@pytest.mark.parametrize(
    ("flags", "kind"), [("fpu avx2 avx512f", "AVX-512"), ("fpu avx2 sha_ni", "AVX2"), ("", "neither AVX2 nor AVX-512")]
)
def test_instructions_are_the_widest_of_the_flags(monkeypatch, flags, kind):
    monkeypatch.setattr(bench, "processor", {"flags": flags}.__getitem__)
    assert bench.instructions() == kind


def test_counted_records_compilations():
    with processes.counted(processes.COMPILED) as events:
        jax.jit(lambda x: 3.25 * x + 1)(jnp.ones(7))
        first = len(events)
        jax.jit(lambda x: 4.25 * x + 1)(jnp.ones(7))
    assert first >= 1 and len(events) > first


def test_compilations_over_jittered_windows_are_zero():
    task = replace(tasks.TASKS["quadratic"], inner_steps=200)
    result = processes.compilations(1, replace(tasks.config("quadratic"), task=task))
    assert result.values == [0.0] and len(set(result.details["windows"])) > 5


def clock_of(durations):
    """A clock under which the calls of each round last these seconds, in order; the first calls are not timed."""
    times = [0.0]
    for duration in durations:
        times += [times[-1] + duration, times[-1] + duration]
    return iter(times[:-1]).__next__


@pytest.mark.heavy
def test_in_forward_steps_is_backward_over_forward(tiny, monkeypatch):
    steps = {"backward": [], "forward": []}
    for name, calls in steps.items():
        monkeypatch.setattr(type(tiny), name, lambda self, n, calls=calls: calls.append(n))
    monkeypatch.setattr(figure, "cpu", clock_of([6.0, 2.0, 8.0, 2.0, 7.0, 2.0]))
    measured = unrolls.in_forward_steps(tiny, 12, 3)
    assert measured.values == [3.0, 4.0, 3.5]
    assert measured.details == {"seconds": {"numerator": 7.0, "denominator": 2.0}}
    assert steps == {"backward": [12] * 4, "forward": [12] * 4}


@pytest.mark.heavy
def test_widened_state_holds_the_same_numbers(tiny):
    with jax.enable_x64(True):
        wide = widened(tiny.state)
    assert wide.w["conv0/kernel"].dtype == np.float64 and wide.step.dtype == np.int32
    np.testing.assert_array_equal(wide.w["conv0/kernel"], tiny.state.w["conv0/kernel"])


class FakeWorker:
    def __init__(self, speed):
        self.speed, self.started = speed, []

    def start(self, seconds):
        self.started.append(seconds)

    def result(self):
        return self.speed


def test_throughput_is_the_sum_over_workers():
    workers = [FakeWorker(3.0), FakeWorker(4.0)]
    assert processes.throughput(workers, 0.5) == 7.0
    assert [worker.started for worker in workers] == [[0.5], [0.5]]


def test_learner_figure_applies_its_samples():
    result = bench_learner.batch(1)
    assert result.details["updates"] == 2 and 16_000 < result.details["payload_bytes"] < 35_000
    assert result.values[0] > 0
