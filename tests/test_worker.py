"""The worker with a scripted learner: its samples, how it applies replies, and resumption from a snapshot."""

import dataclasses
import itertools
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import tasks

from common import moments
from common.config import CurriculumConfig, EstimatorConfig, digest
from common.data.dataset import open_dataset
from common.errors import UserError
from common.messages import Reply, Verdict, encode_theta, pack_reply, pack_sample, unpack_sample
from common.optimizer import initial_theta, make_family
from workers.estimators import antithetic_pair, usable_rp
from workers.trajectory import Sampler
from workers.worker import Worker, make_engine

THETA = np.array([0.15, 0.5], np.float32)


def config(**estimator):
    curriculum = CurriculumConfig(start=5, end=5, jitter=0.2, stagger=False)
    return tasks.config(curriculum=curriculum, estimator=EstimatorConfig(**{"sigma": 0.1, "pairs": 3} | estimator))


class Script:
    """A learner that records what it is sent and answers version v with theta = THETA + v / 100."""

    def __init__(self, run, stop_after=10**9, **reply):
        self.digest, self.stop_after, self.reply = digest(run, ""), stop_after, reply
        self.samples, self.known = [], []

    def exchange(self, payload, epoch, version):
        self.known.append((payload is not None, epoch, version))
        if payload is not None:
            self.samples.append(unpack_sample(payload))
        now = len(self.samples) // 2  # a new version every second sample
        theta = None if (epoch, version) == (1, now) else encode_theta(THETA + np.float32(now / 100))
        stop = len(self.samples) >= self.stop_after
        verdict = None if payload is None else Verdict.accepted
        fields = {"digest": self.digest, "probe_rate": 1.0} | self.reply
        return pack_reply(Reply(verdict=verdict, epoch=1, version=now, theta=theta, stop=stop, **fields))


@cache
def engine():
    """Of all configurations of `config`, which differ in their estimators only: compiled once."""
    return make_engine(config())


def worker_and_script(run=None, uid="w0", **script):
    run = run or config()
    learner = Script(run, **script)
    return Worker(run, uid, learner.exchange, engine()), learner


def without_durations(sample):
    """The packed sample with durations removed: what equal samples have in common."""
    kept = sample.facts._replace(task_seconds=None, exchange_seconds=None, cpu_seconds=None)
    return pack_sample(sample._replace(seconds=0.0, facts=kept))


def test_run_fetches_parameters_then_exchanges_samples():
    worker, learner = worker_and_script(stop_after=5)
    worker.run()
    known = [(False, -1, -1), (True, 1, 0), (True, 1, 0), (True, 1, 1), (True, 1, 1), (True, 1, 2)]
    assert learner.known == known
    assert [(s.worker, s.sequence, s.epoch, s.version) for s in learner.samples] == [
        ("w0", 1, 1, 0),
        ("w0", 2, 1, 0),
        ("w0", 3, 1, 1),
        ("w0", 4, 1, 1),
        ("w0", 5, 1, 2),
    ]
    np.testing.assert_array_equal(worker.theta, THETA + np.float32(0.02))


def test_fetch_returns_parameters_without_a_sample():
    worker, learner = worker_and_script()
    reply = worker.fetch()
    assert reply.verdict is None and learner.samples == [] and worker.sequence == 0
    np.testing.assert_array_equal(worker.theta, THETA)


def test_sample_holds_statistics_of_one_pair_per_trajectory():
    run = config()
    worker, learner = worker_and_script(run)
    for _ in range(5):
        worker.step()
    draw = Sampler(run, worker.samplers[0].task, worker.samplers[0].unroll, "w0", 2)
    trajectories = [draw.begin(index, 1) for index in range(3)]
    for n, sample in enumerate(learner.samples):
        theta = np.asarray(THETA + np.float32(sample.version / 100))
        advances = []
        for index in range(3):
            advance, trajectories[index] = draw.advance(trajectories[index], theta, sample.version, n, with_rp=True)
            advances.append(advance)
        for got, rows in ((sample.rp, [a.pair.rp for a in advances]), (sample.es, [a.es for a in advances])):
            assert got.count == 3
            np.testing.assert_allclose(got.mean, np.mean(rows, axis=0), rtol=1e-12)
            np.testing.assert_allclose(got.m2, 3 * np.var(rows, axis=0), rtol=1e-12)
            np.testing.assert_allclose(moments.variance(got), np.var(rows, axis=0, ddof=1), rtol=1e-12)
        assert sample.windows == tuple(a.steps for a in advances)
        assert sample.starts == tuple(a.start for a in advances)
        assert sample.loss_plus == tuple(a.pair.plus.loss for a in advances)
        assert sample.loss_minus == tuple(a.pair.minus.loss for a in advances)
        assert (sample.digest, sample.objective) == (digest(run, ""), "train")
        assert sample.facts.inner_steps == 2 * sum(sample.windows)
        assert sample.facts.finished == sum(a.finished for a in advances)
    assert sum(s.facts.finished for s in learner.samples) >= 3  # of 12 steps each, in windows of 4 to 6
    assert len({s.loss_plus for s in learner.samples}) == 4 and len(set(learner.samples[0].loss_plus)) == 3


def test_durations_are_those_of_tasks_unroll_and_exchange(monkeypatch):
    """On clocks that have advanced by n seconds when they are read for the n-th time; an exchange is told by the next."""
    worker, learner = worker_and_script()
    clock, cpu = (itertools.accumulate(itertools.count(1.0)) for _ in range(2))
    clocks = SimpleNamespace(perf_counter=clock.__next__, process_time=cpu.__next__)
    monkeypatch.setattr("workers.worker.time", clocks)
    worker.step(), worker.step(), worker.step()
    found = [(s.seconds, s.facts.task_seconds, s.facts.exchange_seconds) for s in learner.samples]
    assert found == [(5.0, 4.0, 2.0), (10.0, 9.0, 7.0)]  # the first step only fetches
    assert [s.facts.cpu_seconds for s in learner.samples] == [2.0, 4.0]


def test_diverged_trajectories_are_counted_in_facts():
    run = config()
    worker, learner = worker_and_script(dataclasses.replace(run))
    worker.step()
    worker.theta = np.array([1e6, 0.0], np.float32)
    worker.step()
    assert learner.samples[0].facts.diverged == 3 and learner.samples[0].loss_plus == (10.0,) * 3


@pytest.mark.parametrize(
    "estimator, rp, es",
    [({}, 3, 3), ({"use": "es"}, 0, 3), ({"use": "rp"}, 3, 3), ({"use": "rp", "sigma": 0.0}, 3, 0)],
)
def test_sample_holds_the_configured_estimators(estimator, rp, es):
    worker, learner = worker_and_script(config(**estimator))
    worker.step(), worker.step()
    sample = learner.samples[0]
    assert (sample.rp.count, sample.es.count) == (rp, es)
    assert sample.facts.inner_steps == (2 if es else 1) * sum(sample.windows)


def test_probe_rate_sets_the_fraction_of_samples_with_rp():
    run = config(pairs=1)
    counts = []
    for uid in ("w0", "w0", "w1"):
        worker, learner = worker_and_script(run, uid, probe_rate=0.3)
        for _ in range(101):
            worker.step()
        counts.append([s.rp.count for s in learner.samples])
    assert counts[0] == counts[1] != counts[2]
    assert abs(sum(counts[0]) - 30) < 4 * np.sqrt(100 * 0.3 * 0.7)


def test_samples_depend_on_seed_and_uid():
    def samples(run, uid):
        worker, learner = worker_and_script(run, uid)
        for _ in range(3):
            worker.step()
        return [without_durations(s._replace(worker="", digest="")) for s in learner.samples]

    first = samples(config(), "w0")
    assert first == samples(config(), "w0")
    assert set(first).isdisjoint(samples(config(), "w1"))
    assert set(first).isdisjoint(samples(dataclasses.replace(config(), seed=1), "w0"))


@pytest.mark.parametrize("before", [1, 2, 6])
@pytest.mark.parametrize(
    "es, more",
    [
        ("truncated", {"use": "es"}),
        ("persistent", {"use": "es"}),
        ("noise_reuse", {"use": "es"}),
        ("persistent", {"reach": 2}),
    ],
)
def test_restore_resumes_bit_for_bit(before, es, more):
    """Before the first sample (one exchange), in the middle of a problem, and after several problems."""
    run = config(es=es, **more)
    worker, learner = worker_and_script(run)
    for _ in range(before):
        worker.step()
    resumed = Worker(run, "w0", learner.exchange, engine())
    resumed.restore(worker.snapshot())
    resumed.fetch()
    left = [without_durations(worker.sample()) for _ in range(4)]
    assert [without_durations(resumed.sample()) for _ in range(4)] == left
    assert resumed.snapshot() == worker.snapshot()


def test_reply_of_another_configuration_is_rejected():
    worker, _ = worker_and_script(digest="0" * 64)
    with pytest.raises(UserError, match="differs from the learner's"):
        worker.step()


def test_sample_on_images_with_validation_objective():
    run = tasks.config("mlp", estimator=EstimatorConfig(objective="valid", outer_batches=1))
    learner = Script(run)
    worker = Worker(run, "w0", learner.exchange)
    assert worker.digest == digest(run, open_dataset(run.dataset).fingerprint) != digest(run, "")
    worker.theta = THETA
    sample = worker.sample()
    assert sample.objective == "valid" and sample.windows == (3,) and sample.es.mean.shape == (2,)
    assert np.all(np.isfinite(sample.rp.mean)) and np.any(sample.rp.mean)
    assert sample.loss_plus[0] == pytest.approx(np.log(3), abs=1.0)


def test_initial_theta_depends_on_the_seed_only():
    run = tasks.config("conv", "mlp")
    theta = initial_theta(run)
    assert theta.shape == (1090,) and theta.dtype == np.float32
    np.testing.assert_array_equal(theta, initial_theta(dataclasses.replace(run, workers=config().workers)))
    assert not np.array_equal(theta, initial_theta(dataclasses.replace(run, seed=1)))


def test_negative_loss_is_rejected_with_the_reason():
    """The bounds on es and the early stop of an evaluation assume losses of at least 0."""
    worker, _ = worker_and_script()
    loss = worker.samplers[0].task.loss
    task = worker.samplers[0].task._replace(loss=lambda w, batch: loss(w, batch) - 100.0)
    worker.samplers[0] = Sampler(worker.config, task, rebuilt(task, worker), "w0", len(THETA))
    with pytest.raises(UserError, match="loss is negative"):
        worker.step()
        worker.step()


def rebuilt(task, worker):
    unroll = worker.samplers[0].unroll
    return type(unroll)(task, make_family(worker.config.optimizer), unroll.outer_loss, unroll.segment)


def test_usable_rp_alone_drops_or_clips_what_is_not_finite():
    computed = [np.array(rp) for rp in ([1.0, np.nan], [2.0, 1e30], [-np.inf, 1e20], [np.inf, 3.0])]
    for settings, expected in (
        (EstimatorConfig(use="rp"), [[2, 1e30]]),
        (EstimatorConfig(use="rp", rp_nonfinite="clip"), [[1, 0], [2, 1e30], [-1e15, 1e15], [1e15, 3]]),
        (EstimatorConfig(), [[1, np.nan], [2, 1e30], [-np.inf, 1e20], [np.inf, 3]]),
    ):
        np.testing.assert_array_equal(usable_rp([*computed, None], settings), expected)


@pytest.mark.parametrize("sigma", [0.1, 0.0])
def test_sample_of_rp_alone_drops_or_clips_and_counts(sigma, monkeypatch):
    def explode(*args, **kwargs):
        return antithetic_pair(*args, **kwargs)._replace(rp=np.array([0.5, np.inf]))

    monkeypatch.setattr("workers.trajectory.antithetic_pair", explode)
    worker, learner = worker_and_script(config(use="rp", sigma=sigma))
    worker.step(), worker.step()
    [sample] = learner.samples
    assert (sample.rp.count, sample.es.count, sample.facts.rp_clipped) == (0, 3 if sigma else 0, None)
    worker, learner = worker_and_script(config(use="rp", sigma=sigma, rp_nonfinite="clip"))
    worker.step(), worker.step()
    [sample] = learner.samples
    assert (sample.rp.count, sample.facts.rp_clipped) == (3, 3.0)
