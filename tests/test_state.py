import numpy as np
import pytest
from helpers.learner import SEGMENTS, SIZE, THETA, config, sample

from common import checkpoint, moments
from learner import rp_skipping
from learner.checkpoints import theta_in
from learner.deduplication import Deduplicator
from learner.merge import Rule
from learner.outer_optimizer import OuterOptimizer
from learner.state import advance, from_record, initial, merge_batch, probe_rate, to_record


def setting(estimator=None, **outer):
    settings = config(estimator, **{"optimizer": "sgd", "clip": "none", "learning_rate": 1.0, **outer})
    made = OuterOptimizer(settings.outer)
    return settings, made, initial(settings, THETA, made), Rule(settings.estimator, SEGMENTS)


def step(state, samples, rule, made):
    return advance(state, merge_batch(state, samples, rule), made)[0]


def constant(value, sequence, rp=True):
    vector = moments.of(np.full((1, SIZE), value))
    return sample("w0", sequence, rp=vector if rp else moments.empty(SIZE), es=vector)


def test_advance_merges_clips_steps_and_counts():
    settings, made, state, rule = setting(clip="elementwise", clip_value=0.1)
    moved = step(state, [constant(0.05, 0), constant(0.05, 1)], rule, made)
    np.testing.assert_allclose(moved.theta, THETA - np.float32(0.05), rtol=1e-6)
    assert moved.version == 1
    clipped = step(state, [constant(-7.0, 0), constant(-7.0, 1)], rule, made)
    np.testing.assert_allclose(clipped.theta, THETA + np.float32(0.1), rtol=1e-6)
    assert probe_rate(state, settings) == 1.0


def test_advance_leaves_the_old_state_untouched():
    _, made, state, rule = setting()
    before = state.theta.copy()
    step(state, [constant(1.0, 0)], rule, made)
    np.testing.assert_array_equal(state.theta, before)
    assert state.version == 0


def test_advance_rejected_step_counts_as_a_version():
    _, made, state, rule = setting({"use": "es"}, learning_rate=1e37)
    merged = merge_batch(state, [constant(300.0, 0)], rule)
    moved, taken = advance(state, merged, made)
    assert taken.rejected and moved.version == 1
    np.testing.assert_array_equal(moved.theta, THETA)


def wild(sequence, rp=True):
    made = sample("w0", sequence)
    vector = moments.of(np.random.default_rng(sequence).normal(0, 1e6, (1, SIZE)))
    return made._replace(rp=vector if rp else moments.empty(SIZE))


def test_negligible_rp_is_skipped_and_weighed_by_its_past():
    settings, made, state, rule = setting({"probe_rate": 0.25, "merge": "coordinate"})
    assert probe_rate(state, settings) == 1.0
    for k in range(rp_skipping.WINDOW):
        state = step(state, [wild(4 * k + j) for j in range(4)], rule, made)
    assert probe_rate(state, settings) == 0.25
    sparse = [constant(0.0, 1000), *(wild(2000 + j, rp=False) for j in range(3))]
    merged = merge_batch(state, sparse, rule)
    past = rp_skipping.past_variance(state.skipping)
    expected = (moments.variance(merged.es) / 4) / (moments.variance(merged.es) / 4 + past / 1)
    np.testing.assert_allclose(merged.weight_rp, expected, rtol=1e-12)
    dense = [wild(3000 + j) for j in range(4)]
    np.testing.assert_array_equal(
        merge_batch(state, dense, rule).weight_rp, merge_batch(state._replace(skipping=None), dense, rule).weight_rp
    )


@pytest.mark.parametrize("probes", [1.0, 0.25])
def test_recent_variance_distrusts_a_calm_batch_after_explosion(probes):
    """Four pairs in a batch: the exploded one is remembered until the block of 32 after its own is complete."""
    weights = {}
    for rp_variance in ("batch", "recent"):
        settings, made, state, rule = setting({"probe_rate": probes, "rp_variance": rp_variance, "merge": "scalar"})
        batches = [[drawn(2 * k), drawn(2 * k + 1)] for k in range(40)]  # of four pairs
        batches[3] = [wild(1000 + k) for k in range(4)]
        weights[rp_variance] = []
        for one in batches:
            merged = merge_batch(state, one, rule)
            weights[rp_variance].append(merged.weight_rp.mean())
            state = advance(state, merged, made)[0]
        assert probe_rate(state, settings) == 1.0
    assert min(weights["batch"][4:]) > 0.5  # 0.9 by the variances that are drawn from
    assert max(weights["recent"][4:16]) < 1e-6 and min(weights["recent"][16:]) > 0.5


@pytest.mark.parametrize(
    "estimator", [{"probe_rate": 1.0}, {"use": "es", "probe_rate": 0.5}, {"use": "rp", "probe_rate": 0.5}]
)
def test_initial_without_skipping_keeps_no_past(estimator):
    settings, _, state, _ = setting(estimator)
    assert state.skipping is None
    assert probe_rate(state, settings) == 1.0


def drawn(sequence):
    draw = np.random.default_rng(sequence)
    rp, es = (moments.of(draw.normal(0, scale, (2, SIZE))) for scale in (1, 3))
    return sample("w0", sequence, rp=rp, es=es)


def test_persistent_merge_is_weighed_by_earlier_batches():
    """The first batch has no earlier one and is es; later weights do not see their own batch, however wild."""
    _, made, state, rule = setting({"es": "persistent", "merge": "coordinate"})
    first = [drawn(0), drawn(1)]
    merged = merge_batch(state, first, rule)
    assert not merged.weight_rp.any()
    np.testing.assert_array_equal(merged.gradient, merged.es.mean)
    state = step(state, first, rule, made)
    rp, es = moments.variance(merged.rp), moments.variance(merged.es)
    for factor in (1.0, 1e3):
        scaled = [
            s._replace(rp=moments.Moments(2, factor * s.rp.mean, factor**2 * s.rp.m2)) for s in (drawn(2), drawn(3))
        ]
        later = merge_batch(state, scaled, rule)
        np.testing.assert_allclose(later.weight_rp, es / (rp + es), rtol=1e-12)
        blend = later.weight_rp * later.rp.mean + (1 - later.weight_rp) * later.es.mean
        np.testing.assert_allclose(later.gradient, blend, rtol=1e-12)


def test_persistent_merge_survives_an_exploded_rp():
    """An rp of 1e30 has no weight in its batch, and none while it is remembered."""
    _, made, state, rule = setting({"es": "persistent", "merge": "coordinate"})
    state = step(state, [drawn(0), drawn(1)], rule, made)
    wild = drawn(2)._replace(rp=moments.of(np.full((2, SIZE), 1e30)))
    for batch in ([wild, drawn(3)], [drawn(4), drawn(5)]):
        merged = merge_batch(state, batch, rule)
        assert not merged.weight_rp.any() and np.isfinite(merged.gradient).all()
        state = step(state, batch, rule, made)
    for k in range(6, 40):
        state = step(state, [drawn(k)], rule, made)
    assert (merge_batch(state, [drawn(40)], rule).weight_rp > 0.5).all()


def test_record_restores_the_past_of_a_persistent_merge():
    settings, made, state, rule = setting({"es": "persistent"})
    for k in range(20):
        state = step(state, [drawn(k)], rule, made)
    stored = checkpoint.unpack(checkpoint.pack(to_record(1, "d", state, Deduplicator(), {})))
    restored, _ = from_record(stored, initial(settings, THETA, made))
    after = [step(s, [drawn(90)], rule, made) for s in (state, restored)]
    assert after[0].theta.tobytes() == after[1].theta.tobytes()
    assert restored.past[0].newer[""].count == state.past[0].newer[""].count > 0


@pytest.mark.parametrize(("rate", "rp_variance"), [(1.0, "batch"), (0.25, "batch"), (1.0, "recent")])
def test_record_restores_the_state_bit_for_bit(rate, rp_variance):
    settings, made, state, rule = setting({"probe_rate": rate, "rp_variance": rp_variance}, optimizer="adam")
    for k in range(3):
        state = step(state, [wild(2 * k), wild(2 * k + 1)], rule, made)
    stored = checkpoint.unpack(checkpoint.pack(to_record(1, "d", state, Deduplicator(), {"turn": b"1"})))
    restored, fitted = from_record(stored, initial(settings, np.zeros(SIZE), made))
    assert fitted and stored["beside"] == {"turn": b"1"} and restored.version == 3
    after = [step(s, [wild(90), wild(91)], rule, made) for s in (state, restored)]
    assert after[0].theta.tobytes() == after[1].theta.tobytes()
    assert (restored.skipping is None) == (rate == 1.0 and rp_variance == "batch")
    if restored.skipping is not None:
        assert restored.skipping.recent == state.skipping.recent
        for name in ("older", "newer"):
            one, other = getattr(restored.skipping, name)[""], getattr(state.skipping, name)[""]
            assert one.count == other.count and one.m2.tobytes() == other.m2.tobytes()


def test_record_of_another_optimizer_keeps_theta_only():
    _, made, state, rule = setting(optimizer="adam")
    state = step(state, [wild(0), wild(1)], rule, made)
    _, sgd, fresh, _ = setting(optimizer="sgd")
    restored, fitted = from_record(to_record(1, "d", state, Deduplicator(), {}), fresh)
    assert not fitted and restored.version == 1
    assert restored.theta.tobytes() == state.theta.tobytes()
    assert step(restored, [wild(2), wild(3)], rule, sgd).version == 2


@pytest.mark.parametrize(
    "content", [None, {}, {"theta": b"1234"}, {"theta": np.zeros(3)}, {"theta": np.zeros((1, 3), np.float32)}]
)
def test_theta_in_record_without_theta_is_corrupt(content):
    with pytest.raises(checkpoint.CorruptRecord, match=r"x\.ckpt holds no parameters"):
        theta_in(content, "x.ckpt")
