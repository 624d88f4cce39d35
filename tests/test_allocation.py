"""Allocation: rp is computed while it removes more variance than es could in the same CPU time, and decided without a clock."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from helpers.in_process import train
from helpers.learner import SEGMENTS, SIZE, THETA, ask, config, sample, send, start

from cluster.runs.directory import load_theta
from common import checkpoint, moments
from common.config import CurriculumConfig
from common.configfile import from_dict
from learner import rp_skipping
from learner.deduplication import Deduplicator
from learner.history import read_history
from learner.merge import FLOOR, Rule
from learner.outer_optimizer import OuterOptimizer
from learner.rp_skipping import BACK, PATIENCE, WINDOW, least_worth
from learner.state import advance, allocation, from_record, initial, merge_batch, probe_rate, ramps, to_record

ON = {"probe_rate": 0.1, "allocate": True}


def setting(**estimator):
    settings = config({**ON, **estimator}, clip="global_norm", learning_rate=0.01)
    made = OuterOptimizer(settings.outer)
    return settings, made, initial(settings, THETA, made), Rule(settings.estimator, SEGMENTS)


def drawn(number, scale, *, with_rp=True):
    """A sample whose rp has `scale` times the standard deviation of es."""
    draw = np.random.default_rng(number)
    rp, es = draw.normal(0, scale, (4, SIZE)), draw.normal(0, 1, (4, SIZE))
    return sample("w0", number, pairs=4, rp=moments.of(rp if with_rp else rp[:0]), es=moments.of(es))


def trained(scales, setting, with_rp=True):
    """The probe rate after each batch of four samples, and the last state."""
    settings, made, state, rule = setting
    rates = []
    for k, scale in enumerate(scales):
        batch = [drawn(4 * k + j, scale, with_rp=with_rp) for j in range(4)]
        state = advance(state, merge_batch(state, batch, rule), made)[0]
        assert np.isfinite(state.theta).all()
        rates.append(probe_rate(state, settings))
    return rates, state


@pytest.mark.parametrize("rp_cost, weight", product([0.5, 2.6, 11.5], [0.2, 0.5, 0.9]))
def test_least_worth_is_where_variance_times_cost_is_equal(rp_cost, weight):
    """Per pair of es, variance and CPU time are 1; with rp they are 1 - weight and 1 + rp_cost."""
    assert (weight > least_worth(rp_cost)) == ((1 - weight) * (1 + rp_cost) < 1)


def test_rate_stays_1_while_rp_is_worth_its_time():
    assert trained([0.1] * 12, setting())[0] == [1.0] * 12


def test_rate_falls_once_a_few_batches_have_exploded():
    assert trained([1e6] * 6, setting())[0] == [1.0] * (PATIENCE - 1) + [0.1] * 3


def test_rate_stays_1_where_one_batch_in_eight_explodes():
    assert set(trained(([0.01] * 7 + [1e8]) * 3, setting())[0]) == {1.0}


@pytest.mark.parametrize("rp_cost, expected", [(0.5, 1.0), (2.6, 0.1)])
def test_rate_depends_on_the_cost_of_rp(rp_cost, expected):
    """Both estimators have the same variance, so rp removes half of it."""
    rates, state = trained([1.0] * 12, setting(rp_cost=rp_cost))
    assert rates[-1] == expected
    assert rp_skipping.worth(state.skipping) == pytest.approx(0.5, abs=0.1)


def test_rate_returns_to_1_when_probes_are_calm():
    made = setting()
    exploded = trained([1e6] * 6, made)[1]
    rates = trained([0.1] * 20, (made[0], made[1], exploded, made[3]))[0]
    assert rates[0] == 0.1 and rates[-1] == 1.0


@pytest.mark.parametrize("bad", [1e30, np.inf, np.nan])
@pytest.mark.parametrize("merge", ["scalar", "tensor", "coordinate"])
def test_worth_is_a_fraction_under_any_rp(bad, merge):
    settings, made, state, rule = setting(merge=merge)
    for k in range(WINDOW + 2):
        wild = drawn(k, 1.0)._replace(rp=moments.of(np.full((4, SIZE), bad)))
        merged = merge_batch(state, [wild, drawn(50 + k, 0.1), drawn(90 + k, 0.1, with_rp=k % 2 > 0)], rule)
        state = advance(state, merged, made)[0]
        assert np.isfinite(merged.gradient).all() and np.isfinite(merged.weight_rp).all()
        found = allocation(state, settings)
        assert 0 <= found.worth <= 1 and found.probe_rate in (0.1, 1.0)
    assert len(state.skipping.recent) == WINDOW


def test_batches_without_probes_keep_the_rate():
    made = setting()
    exploded = trained([1e6] * 6, made)[1]
    rates = trained([1.0] * 5, (made[0], made[1], exploded, made[3]), with_rp=False)[0]
    assert rates == [0.1] * 5


def test_worth_of_a_sparse_batch_is_by_past_probes():
    """A lone calm probe does not hide the explosions before it."""
    state = rp_skipping.start(SIZE)._replace(least=least_worth(2.6))
    es = {"": moments.of(np.random.default_rng(0).normal(size=(8, SIZE)))}
    wild, calm = (moments.of(np.random.default_rng(1).normal(0, scale, (8, SIZE))) for scale in (1e6, 1e-3))
    state = rp_skipping.observe(state, {"": wild}, es, FLOOR)
    state = rp_skipping.observe(state, {"": calm}, es, FLOOR)
    assert max(state.recent) < 1e-6
    assert rp_skipping.observe(state, {"": calm}, es, FLOOR, np.ones(SIZE)).recent[-1] == 1.0


def test_persistent_merge_is_not_given_up_for_its_first_batch():
    """Its weights come from earlier batches: that of the first one is 0, whatever rp is worth."""
    assert set(trained([0.1] * 6, setting(es="persistent"))[0]) == {1.0}


def test_record_restores_allocation():
    settings, made, state, rule = setting()
    state = trained([0.1, 1e6, 1e6], (settings, made, state, rule))[1]
    stored = checkpoint.unpack(checkpoint.pack(to_record(1, "d", state, Deduplicator(), {})))
    restored, _ = from_record(stored, initial(settings, THETA, made))
    assert restored.skipping.recent == state.skipping.recent and len(state.skipping.recent) == 3
    assert trained([1.0], (settings, made, restored, rule))[0] == trained([1.0], (settings, made, state, rule))[0]


def test_allocation_is_none_unless_it_is_on():
    settings, _, state, _ = setting(allocate=False)
    assert allocation(state, settings) is None


def held(steps=6, **estimator):
    settings = config({**ON, **estimator}, clip="global_norm", learning_rate=0.01)
    settings = replace(settings, curriculum=CurriculumConfig(start=10, end=50, updates=steps, hold=True))
    made = OuterOptimizer(settings.outer)
    return settings, made, initial(settings, THETA, made), Rule(settings.estimator, SEGMENTS)


def path_of(scales, setting):
    """Where the ramp is, and the probe rate, after each batch."""
    settings, made, state, rule = setting
    found = [(*ramps(state), probe_rate(state, settings))]
    for scale in scales:
        rates, state = trained([scale], (settings, made, state, rule))
        found.append((*ramps(state), *rates))
    return [at for at, _ in found], [rate for _, rate in found]


def test_ramp_rises_while_rp_is_worth_it_and_goes_back():
    at, rates = path_of([0.1] * 8 + [1e6, 0.1], held())
    assert at == [0, 1, 2, 3, 4, 5, 6, 6, 6, 6 - BACK, 7 - BACK]
    assert set(rates) == {1.0}


def test_ramp_stays_within_bounds_and_rp_is_skipped_at_its_start():
    at, rates = path_of([1e6] * 6, held())
    assert set(at) == {0} and rates[-1] == 0.1


def test_ramp_is_that_of_the_version_unless_it_is_held():
    assert ramps(setting()[2]) == () == ramps(setting(allocate=False)[2])


def test_record_restores_the_ramp():
    settings, made, _, _ = made_here = held()
    state = trained([0.1] * 3, made_here)[1]
    stored = checkpoint.unpack(checkpoint.pack(to_record(1, "d", state, Deduplicator(), {})))
    assert ramps(from_record(stored, initial(settings, THETA, made))[0]) == (3,)


def test_learner_tells_workers_where_the_ramp_is(tmp_path):
    settings = held()[0]
    learner = start(tmp_path, settings)
    for k in range(3):  # four pairs fill a batch
        assert ask(learner).ramps == (k,)
        send(learner, drawn(k, 0.1))


TREE = {
    "task": {"family": "quadratic", "inner_steps": 12, "options": {"dimension": 2}},
    "optimizer": {"family": "sgd", "learning_rate": 1.5},
    "estimator": {"pairs": 2, "probe_rate": 0.25, "allocate": True, "rp_cost": 5.0},
    "curriculum": {"start": 12, "end": 12, "updates": 0},
    "outer": {"updates": 16, "batch_samples": 3, "learning_rate": 0.05},
    "workers": {"count": 2},
}


@pytest.mark.heavy
@pytest.mark.parametrize("curriculum", [{}, {"start": 2, "updates": 6, "hold": True}], ids=["rate", "window"])
def test_run_with_allocation_repeats_and_resumes_bit_for_bit(tmp_path, monkeypatch, curriculum):
    """The rate falls on the way, as the inner problems diverge, or the window rises; kills are before and after that."""
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path))
    wanted = from_dict({**TREE, "curriculum": {**TREE["curriculum"], **curriculum}})
    first, again = (train(name, wanted) for name in ("first", "again"))
    for steps in (8, 17):
        train("killed", wanted, steps)
    killed = train("killed", wanted)
    decided = [[line.allocation for line in read_history(run.path)] for run in (first, again, killed)]
    assert decided[0] == decided[1] == decided[2]
    assert {one.probe_rate for one in decided[0]} == {0.25, 1.0}
    windows = [[line.windows.max for line in read_history(run.path)] for run in (first, again, killed)]
    assert windows[0] == windows[1] == windows[2] and (not curriculum or len(set(windows[0])) > 1)
    thetas = [load_theta(run)[0].tobytes() for run in (first, again, killed)]
    assert thetas[0] == thetas[1] == thetas[2]
