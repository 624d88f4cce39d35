import numpy as np
import pytest
from helpers.learner import DIGEST, SIZE, config, sample

from common import moments
from common.config import Config, EstimatorConfig
from common.messages import Verdict
from common.moments import Moments
from learner.admission import Head, admit, limits, samples_in, staleness
from learner.deduplication import Deduplicator

HERE = Head(epoch=3, version=20, ancestors={2: 15, 1: 9})
BOUND = 8 * 10 / (2 * 0.1)  # 8 clamp / (2 sigma) = 400


def judge(made, settings=None, head=HERE, taken=None):
    return admit(made, limits(settings or config(), DIGEST, SIZE), head, taken or Deduplicator())


def current(**fields):
    return sample(**{"epoch": 3, "version": 20, **fields})


def with_es(position, value):
    mean = np.zeros(SIZE)
    mean[position] = value
    return current(es=Moments(1, mean, np.zeros(SIZE)))


def with_rp(value, settings=None):
    return judge(current(rp=moments.of(np.full((1, SIZE), value))), settings)


def test_admit_honest_sample_is_accepted():
    assert judge(current()) is Verdict.accepted
    assert judge(current(rp=moments.empty(SIZE))) is Verdict.accepted
    assert judge(current(starts=(480,), windows=(20,))) is Verdict.accepted
    assert judge(current(loss_plus=(10.0,), loss_minus=(10.0,))) is Verdict.accepted


@pytest.mark.parametrize(
    ("epoch", "version", "verdict"),
    [
        (3, 20, Verdict.accepted),
        (3, 16, Verdict.accepted),
        (3, 21, Verdict.malformed),  # a version that does not exist yet
        (2, 15, Verdict.accepted),  # the parent of this epoch
        (2, 16, Verdict.wrong_epoch),  # past it
        (1, 9, Verdict.accepted),
        (1, 10, Verdict.wrong_epoch),
        (0, 0, Verdict.wrong_epoch),
        (4, 0, Verdict.wrong_epoch),
    ],
)
def test_admit_parameters_must_lie_on_the_lineage(epoch, version, verdict):
    made = current(epoch=epoch, version=version)
    assert judge(made) is verdict
    assert staleness(made, HERE) == (20 - version if version <= {3: 20, 2: 15, 1: 9}.get(epoch, -1) else None)


@pytest.mark.parametrize(
    ("limit", "behind", "verdict"),
    [(-1, 20, "accepted"), (0, 0, "accepted"), (0, 1, "stale"), (4, 4, "accepted"), (4, 5, "stale")],
)
def test_admit_staleness_beyond_the_limit_is_stale(limit, behind, verdict):
    made = current(version=20 - behind)
    assert judge(made, config(max_staleness=limit)).value == verdict


def test_admit_other_digest_is_wrong_run_first():
    assert judge(current(digest="e" * 64, objective="valid", loss_plus=(float("nan"),))) is Verdict.wrong_run


@pytest.mark.parametrize(
    "fields",
    [
        dict(objective="valid"),
        dict(windows=(501,)),
        dict(windows=(20,), starts=(481,)),
        dict(pairs=2, windows=(20, 20), starts=(481, 0)),
        dict(rp=Moments(1, np.zeros(SIZE), -np.eye(SIZE)[2])),
        dict(loss_plus=(10.1,)),
        dict(loss_minus=(10.1,)),
        dict(es=moments.empty(SIZE)),
        dict(rp=Moments(1, np.zeros(SIZE), np.full(SIZE, -1.0))),
        dict(rp=moments.empty(5), es=Moments(1, np.zeros(5), np.zeros(5))),
    ],
)
def test_admit_impossible_numbers_are_malformed(fields):
    assert judge(current(**fields)) is Verdict.malformed


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (BOUND, "accepted"),
        (-BOUND, "accepted"),
        (BOUND * 1.001, "malformed"),
        (-BOUND * 1.001, "malformed"),
        (1e30, "malformed"),
        (np.inf, "non_finite"),
        (np.nan, "non_finite"),
    ],
)
def test_admit_es_beyond_the_clamp_bound_is_malformed(value, verdict):
    assert judge(with_es(4, value)).value == verdict


def test_admit_es_deviations_beyond_the_bound_are_malformed():
    """Two pairs within the bound deviate by at most 2 bound^2 in all; a larger M2 would take es out of the merge."""
    for deviation, verdict in (
        (2 * BOUND**2, Verdict.accepted),
        (2.01 * BOUND**2, Verdict.malformed),
        (-1.0, Verdict.malformed),
    ):
        made = current(pairs=2, es=Moments(2, np.zeros(SIZE), np.full(SIZE, deviation)))
        assert judge(made, config({"pairs": 2})) is verdict


@pytest.mark.parametrize("field", ["loss_plus", "loss_minus"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_admit_non_finite_loss_is_non_finite(field, value):
    assert judge(current(**{field: (float(value),)})) is Verdict.non_finite


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_admit_exploding_rp_is_accepted_beside_es(value):
    assert with_rp(value) is Verdict.accepted
    expected = Verdict.accepted if np.isfinite(value) else Verdict.non_finite
    assert with_rp(value, config({"use": "rp"})) is expected
    alone = config({"use": "rp", "sigma": 0.0})
    made = current(es=moments.empty(SIZE), rp=moments.of(np.full((1, SIZE), value)))
    assert judge(made, alone) is expected


def test_admit_one_deviation_beyond_the_bound_is_malformed():
    for deviation in (2.01 * BOUND**2, -1.0):
        made = current(pairs=2, es=Moments(2, np.zeros(SIZE), deviation * np.eye(SIZE)[1]))
        assert judge(made, config({"pairs": 2})) is Verdict.malformed


def test_admit_without_noise_needs_rp_and_no_es():
    alone = config({"use": "rp", "sigma": 0.0})
    assert judge(current(es=moments.empty(SIZE)), alone) is Verdict.accepted
    assert judge(current(), alone) is Verdict.malformed
    clips = config({"use": "rp", "rp_nonfinite": "clip"})
    assert judge(current(rp=moments.empty(SIZE)), clips) is Verdict.malformed


def test_admit_rp_alone_may_lack_dropped_pairs():
    for sigma, es in ((0.1, sample(pairs=2).es), (0.0, moments.empty(SIZE))):
        fewer = current(pairs=2, es=es, rp=moments.of(np.ones((1, SIZE))))
        for policy, verdict in (("drop", Verdict.accepted), ("clip", Verdict.malformed)):
            settings = config({"use": "rp", "sigma": sigma, "pairs": 2, "rp_nonfinite": policy})
            assert judge(fewer, settings) is verdict
    none = current(es=moments.empty(0), rp=moments.empty(0))
    assert judge(none, config({"use": "rp", "sigma": 0.0})) is Verdict.accepted
    assert judge(none, config({"use": "rp", "sigma": 0.0, "rp_nonfinite": "clip"})) is Verdict.malformed
    assert judge(none, config()) is Verdict.malformed


def test_admit_rp_alone_beyond_float32_is_malformed():
    assert with_rp(1e39, config({"use": "rp"})) is Verdict.malformed


def test_admit_repeated_name_is_duplicate():
    taken = Deduplicator()
    taken.accept("w0", 5, 20)
    verdicts = [judge(current(sequence=n), taken=taken) for n in (4, 5, 6)]
    assert verdicts == [Verdict.duplicate, Verdict.duplicate, Verdict.accepted]


def test_admit_possible_repeat_of_evicted_worker_is_stale():
    taken = Deduplicator(limit=1)
    taken.accept("a", 0, 18)
    taken.accept("b", 0, 20)
    assert judge(current(worker="c", version=18), taken=taken) is Verdict.stale
    assert judge(current(worker="c", version=19), taken=taken) is Verdict.accepted


def test_admit_closed_learner_gives_its_verdict():
    for verdict in (Verdict.stale, Verdict.wrong_epoch):
        closed = HERE._replace(closed=verdict)
        assert judge(current(), head=closed) is verdict
        assert judge(current(digest="e" * 64), head=closed) is Verdict.wrong_run


def test_admit_aggregate_counts_as_many_samples():
    settings = config({"pairs": 2}, batch_samples=3)
    verdicts = {pairs: judge(current(pairs=pairs), settings) for pairs in (2, 3, 6, 8)}
    assert [v.value for v in verdicts.values()] == ["accepted", "malformed", "accepted", "malformed"]
    assert samples_in(current(pairs=6), 2) == 3
    assert judge(current(pairs=6, rp=moments.of(np.ones((2, SIZE)))), settings) is Verdict.accepted


def test_limits_es_bound_follows_clamp_and_sigma():
    tight = Config(estimator=EstimatorConfig(clamp=2.0, sigma=0.5))
    assert limits(tight, DIGEST, SIZE).es == pytest.approx(8 * 2 / (2 * 0.5), rel=1e-3)
