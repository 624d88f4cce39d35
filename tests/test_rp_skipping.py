import numpy as np
import pytest
from helpers.learner import sample

from common import moments
from learner import rp_skipping
from learner.merge import EXPLODED, FLOOR
from learner.rp_skipping import NEGLIGIBLE, WINDOW
from learner.running import BLOCK

SIZE = 3
ES = {"": moments.of(np.array([[0.0] * SIZE, [2.0] * SIZE]))}  # per-pair variance 2


def observed(batches, state=None):
    state = state or rp_skipping.start(SIZE)
    for rows in batches:
        rp = moments.of(np.asarray(rows, float).reshape(-1, SIZE))
        state = rp_skipping.observe(state, {"": rp}, ES, FLOOR)
    return state


def wild(count, seed=0, scale=1e4):
    return [np.random.default_rng([seed, k]).normal(0, scale, (4, SIZE)) for k in range(count)]


def test_past_variance_of_one_batch_is_its_own():
    rows = np.random.default_rng(0).normal(size=(5, SIZE))
    np.testing.assert_allclose(rp_skipping.past_variance(observed([rows])), rows.var(axis=0, ddof=1), rtol=1e-12)


def test_past_variance_of_single_probes_covers_the_last_block():
    """Batches of one probe each: the variance of the last complete block and of what came after it."""
    rows = np.random.default_rng(0).normal(0, 3, (10 * BLOCK + 5, SIZE))
    estimate = rp_skipping.past_variance(observed(rows[:, None]))
    np.testing.assert_allclose(estimate, rows[-BLOCK - 5 :].var(axis=0, ddof=1), rtol=1e-12)


def test_rate_returns_to_1_when_gradients_become_calm():
    """Two blocks of probes forget any past; fading by a factor would need thousands for one of 1e20."""
    state = observed(wild(WINDOW, scale=1e10))
    assert rp_skipping.rate(state, 0.125) == 0.125
    calm = np.random.default_rng(1).normal(0, 1, (2 * BLOCK, 1, SIZE))
    assert (rp_skipping.past_variance(observed(calm[: BLOCK - 1], state)) > 1e18).all()
    state = observed(calm, state)
    np.testing.assert_allclose(rp_skipping.past_variance(state), calm[-BLOCK:, 0].var(axis=0, ddof=1), rtol=1e-12)
    assert rp_skipping.rate(state, 0.125) == 1.0


def test_past_variance_at_the_start_is_infinite():
    assert np.isinf(rp_skipping.past_variance(rp_skipping.start(SIZE))).all()
    assert np.isinf(rp_skipping.past_variance(observed([np.ones((1, SIZE))]))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_past_variance_forgets_a_non_finite_probe(bad):
    row = np.ones((1, SIZE))
    row[0, 1] = bad
    rows = [np.random.default_rng(k).normal(size=(4, SIZE)) for k in range(100)]
    state = observed([*rows[:3], row])
    assert np.isinf(rp_skipping.past_variance(state)).tolist() == [False, True, False]
    later = rp_skipping.past_variance(observed(rows, state))
    assert np.isfinite(later).all() and later[1] == pytest.approx(1, rel=0.5)


def test_rate_falls_only_after_a_full_window_agrees():
    states = [observed(wild(count)) for count in range(1, WINDOW + 1)]
    assert max(states[-1].recent) < NEGLIGIBLE
    assert [rp_skipping.rate(s, 0.125) for s in states] == [1.0] * (WINDOW - 1) + [0.125]


def test_rate_one_batch_that_disagrees_ends_skipping():
    state = observed(wild(WINDOW))
    assert rp_skipping.rate(state, 0.125) == 0.125
    state = state._replace(recent=(*state.recent[1:], 2 * NEGLIGIBLE))
    assert rp_skipping.rate(state, 0.125) == 1.0


def test_rate_where_rp_matters_is_1():
    calm = [np.random.default_rng(k).normal(0, 0.1, (4, SIZE)) for k in range(2 * WINDOW)]
    state = observed(calm)
    assert min(state.recent) > 0.9
    assert rp_skipping.rate(state, 0.125) == 1.0


def test_observe_weight_is_that_of_a_full_batch():
    """var_es 2, var_rp 8 of a pair: 2 / (8 + 2), however few probes the batch had."""
    state = observed([[[0.0] * SIZE, [4.0] * SIZE]])
    assert state.recent[-1] == pytest.approx(0.2)


def test_past_variance_excludes_the_batch_itself():
    """The running variance that weighs a batch is read before the batch is seen."""
    state = observed(wild(WINDOW))
    before = rp_skipping.past_variance(state)
    after = rp_skipping.past_variance(observed([np.zeros((2, SIZE))], state))
    assert (before > 1e7).all() and (after < before).all()


def test_observe_without_probes_or_es_learns_nothing():
    state = observed(wild(2))
    unseen = rp_skipping.observe(state, {"": moments.empty(SIZE)}, ES, FLOOR)
    np.testing.assert_array_equal(rp_skipping.past_variance(unseen), rp_skipping.past_variance(state))
    one = moments.of(np.ones((1, SIZE)))
    assert rp_skipping.observe(state, {"": one}, {"": one}, FLOOR).recent == state.recent


def test_is_sparse_sees_samples_without_rp():
    skipped = sample(rp=moments.empty(6))
    assert not rp_skipping.is_sparse([sample(), sample()])
    assert rp_skipping.is_sparse([sample(), skipped])


def test_observe_largest_probes_do_not_overflow():
    state = observed([np.full((2, SIZE), EXPLODED), np.full((2, SIZE), -EXPLODED), np.ones((2, SIZE))])
    assert np.isfinite(rp_skipping.past_variance(state)).all()
    assert state.recent[-1] == pytest.approx(0, abs=1e-29)
