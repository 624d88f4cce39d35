import errno
import logging
import threading

import numpy as np
import pytest
from helpers.exposition import exposition
from helpers.learner import DIGEST, SIZE, THETA, ask, config, feed, sample, send, start

from cluster.monitoring.metrics import LearnerMetrics
from common import files, moments
from common.messages import Verdict, decode_theta, pack_sample, unpack_reply, unpack_sample
from learner.aggregator import merged
from learner.checkpoints import latest_checkpoint, load_theta
from learner.failpoints import POINTS, FailpointReached
from learner.history import read_history
from learner.journal import replay


class Listener(LearnerMetrics):
    """The real metrics, which also remember how they were called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def checkpoint_written(self, version, size_bytes, seconds, time):
        assert 0 < seconds < 60 < size_bytes
        self.calls.append(("written", version))
        super().checkpoint_written(version, size_bytes, seconds, time)

    def checkpoint_failed(self):
        self.calls.append("failed")
        super().checkpoint_failed()


class FullDisk:
    """Storage on which checkpoints cannot be written while it is full."""

    def __init__(self, monkeypatch):
        self.full, self._real = False, files._write
        monkeypatch.setattr(files, "_write", self)

    def __call__(self, *arguments):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._real(*arguments)


def test_exchange_that_fills_the_batch_updates(tmp_path):
    learner = start(tmp_path)
    replies = [send(learner, sample(sequence=k)) for k in range(4)]
    assert [r.version for r in replies] == [0, 0, 0, 1]
    assert all(r.verdict is Verdict.accepted and r.epoch == 1 and r.digest == DIGEST for r in replies)
    assert decode_theta(replies[-1].theta).tobytes() == load_theta(latest_checkpoint(tmp_path)).tobytes()
    assert not np.array_equal(decode_theta(replies[-1].theta), THETA)


def test_exchange_sends_theta_only_if_it_is_newer(tmp_path):
    learner = start(tmp_path)
    assert ask(learner, (1, 0)).theta is None
    for known in ((-1, -1), (1, 1), (0, 0), (2, 0), (None, "x")):
        assert len(ask(learner, known).theta) == 4 * SIZE
    assert ask(learner).verdict is None


def test_retry_counts_once(tmp_path):
    learner = start(tmp_path)
    verdicts = [send(learner, sample(sequence=k)).verdict.value for k in (0, 0, 1, 0, 2, 1)]
    assert verdicts == ["accepted", "duplicate", "accepted", "duplicate", "accepted", "duplicate"]
    assert learner.status().batch == 3


def test_retry_after_a_restart_counts_once(tmp_path):
    """Its reply was lost in the crash; the checkpoint knows the sample, so the next incarnation rejects it."""
    feed(start(tmp_path), 4)
    learner = start(tmp_path)
    assert send(learner, sample(sequence=3)).verdict is Verdict.duplicate
    assert send(learner, sample(sequence=4, epoch=1, version=1)).verdict is Verdict.accepted


def test_sample_lost_with_its_batch_is_accepted_again(tmp_path):
    feed(start(tmp_path), 6)
    learner = start(tmp_path)
    assert send(learner, sample(sequence=5, epoch=1, version=1)).verdict is Verdict.accepted


def test_sample_past_the_parent_checkpoint_is_wrong_epoch(tmp_path, monkeypatch):
    disk, learner = FullDisk(monkeypatch), start(tmp_path)
    disk.full = True
    assert feed(learner, 4)[-1].version == 1
    disk.full = False
    assert send(start(tmp_path), sample(sequence=4, epoch=1, version=1)).verdict is Verdict.wrong_epoch


def test_order_of_arrival_does_not_change_theta(tmp_path):
    made = [sample(worker, k) for worker in ("w10", "w9", "a") for k in range(4)]
    thetas = []
    for seed in range(3):
        learner = start(tmp_path / str(seed), config(batch_samples=12, optimizer="adam"))
        own = {w: [m for m in made if m.worker == w] for w in ("w10", "w9", "a")}
        random = np.random.default_rng(seed)
        while left := [w for w in own if own[w]]:
            reply = send(learner, own[left[random.integers(len(left))]].pop(0))
        thetas.append(reply.theta)
    assert thetas[0] == thetas[1] == thetas[2]


def test_exchange_is_thread_safe(tmp_path):
    learner, replies = start(tmp_path, config(journal=True, updates=1000)), []

    def work(uid):
        for sequence in range(30):
            made = pack_sample(sample(uid, sequence))
            for _ in range(2):
                replies.append(unpack_reply(learner.exchange(made, -1, -1)))

    threads = [threading.Thread(target=work, args=(f"w{k}",)) for k in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert learner.status().verdicts == {"accepted": 180, "duplicate": 180}
    replayed = replay(tmp_path)
    assert replayed.state.version == ask(learner).version == 45
    assert replayed.state.theta.tobytes() == ask(learner).theta
    assert len(set(replayed.names)) == len(replayed.names) == 180


def test_finished_learner_stops_its_workers(tmp_path):
    learner = start(tmp_path, config(updates=2))
    replies = feed(learner, 9)
    assert [r.stop for r in replies] == [False] * 7 + [True, True]
    assert [r.version for r in replies[-2:]] == [2, 2]
    assert replies[-1].verdict is Verdict.stale
    assert learner.finished and learner.status().finished
    assert ask(start(tmp_path, config(updates=2))).stop


def test_draining_learner_stops_workers_and_accepts_samples(tmp_path):
    learner = start(tmp_path)
    feed(learner, 2)
    learner.drain()
    replies = feed(learner, 2, first=2)
    assert ask(learner).stop and all(r.stop and r.verdict is Verdict.accepted for r in replies)
    assert replies[-1].version == 1


def test_superseded_learner_stops_before_it_acknowledges(tmp_path, caplog):
    first = start(tmp_path)
    feed(first, 6)
    second = start(tmp_path)
    with caplog.at_level(logging.WARNING):
        late = feed(first, 3, first=6)
    assert [r.verdict.value for r in late] == ["accepted", "wrong_epoch", "wrong_epoch"]
    assert late[-1].stop and late[-1].version == 1
    assert first.status().superseded and "a later learner has taken over" in caplog.text
    assert feed(second, 4, first=20)[-1].version == 2
    assert [(r.epoch, r.version) for r in read_history(tmp_path)] == [(1, 1), (2, 2)]


def test_every_payload_gets_its_verdict(tmp_path):
    metrics = Listener()
    learner = start(tmp_path, config(max_staleness=1), observer=metrics)
    feed(learner, 8)
    bad_es = moments.of(np.full((1, SIZE), 401.0))
    sent = {
        "accepted": sample("a", 0, version=2),
        "stale": sample("b", 0, version=0),
        "duplicate": sample("w0", 7, version=2),
        "malformed": sample("c", 0, version=2, es=bad_es),
        "wrong_epoch": sample("d", 0, epoch=7),
        "wrong_run": sample("e", 0, digest="f" * 64),
        "non_finite": sample("f", 0, version=2, loss_plus=(float("nan"),)),
    }
    assert {name: send(learner, made).verdict.value for name, made in sent.items()} == {name: name for name in sent}
    assert {v.value for v in Verdict} == set(sent)
    for junk in (b"", b"junk", "text", 7):
        assert unpack_reply(learner.exchange(junk, 1, 2)).verdict is Verdict.malformed
    counts = learner.status().verdicts
    assert counts == {name: 1 for name in sent} | {"accepted": 9, "malformed": 5}
    text = exposition(metrics.registry)
    for name, count in counts.items():
        assert f'outertrain_samples_total{{verdict="{name}"}} {float(count)}' in text


def test_rejections_are_logged_at_powers_of_two_by_worker(tmp_path, caplog):
    learner = start(tmp_path)
    with caplog.at_level(logging.WARNING):
        for k in range(9):
            send(learner, sample("w7", k, digest="f" * 64))
    assert [r.args[1] for r in caplog.records] == [1, 2, 4, 8]
    assert "another task, dataset" in caplog.text and "worker w7" in caplog.text


def test_exploding_rp_leaves_theta_finite_and_is_counted(tmp_path):
    learner = start(tmp_path)
    for k, value in enumerate((np.nan, np.inf, 1e30, -np.inf)):
        reply = send(learner, sample(sequence=k, rp=moments.of(np.full((1, SIZE), value))))
    assert np.isfinite(decode_theta(reply.theta)).all()
    [line] = read_history(tmp_path)
    assert (line.rp_nonfinite, line.rp_fallback, line.weight_rp.mean) == (4, SIZE, 0.0)
    only_es = start(tmp_path / "es", config({"use": "es"}))
    for k in range(4):
        expected = send(only_es, sample(sequence=k))
    assert expected.theta == reply.theta


def test_each_update_appends_a_record_to_the_history(tmp_path):
    clock = iter(np.arange(1000.0, 2000.0))
    learner = start(tmp_path, clock=lambda: next(clock))
    feed(learner, 8)
    lines = read_history(tmp_path)
    assert [(r.epoch, r.version, r.samples) for r in lines] == [(1, 1, 4), (1, 2, 4)]
    assert all(r.time - r.seconds == lines[0].time - lines[0].seconds for r in lines)
    assert all(0 < r.seconds < 100 for r in lines)
    assert 0 < learner.status().durable_seconds_ago < learner.status().seconds < 100
    assert lines[1].verdicts == {"accepted": 8}


def test_theta_is_published_only_when_it_is_durable(tmp_path):
    """Seen from another thread's view: at each step of the write, a reply still brings the version before."""
    learner, seen = None, []

    def failpoint(point):
        if learner is not None and point in POINTS[4:10] and threading.current_thread().name == "main":
            other = threading.Thread(target=lambda: seen.append(ask(learner).version))
            other.start()
            other.join()

    threading.current_thread().name = "main"
    learner = start(tmp_path, failpoint=failpoint)
    assert feed(learner, 4)[-1].version == 1
    assert seen == [0] * 6


def test_full_disk_does_not_stop_training(tmp_path, monkeypatch, caplog):
    disk, metrics = FullDisk(monkeypatch), Listener()
    learner = start(tmp_path, config(journal=True), observer=metrics)
    feed(learner, 4)
    old = latest_checkpoint(tmp_path)
    disk.full = True
    with caplog.at_level(logging.ERROR):
        assert feed(learner, 8, first=4)[-1].version == 3
    status = learner.status()
    assert (status.durable_version, status.checkpoint_failures, status.version) == (1, 2, 3)
    assert "No space left" in status.checkpoint_error and "No space left" in caplog.text
    assert latest_checkpoint(tmp_path) == old and load_theta(old).shape == (SIZE,)
    disk.full = False
    feed(learner, 4, first=12)
    status = learner.status()
    assert (status.durable_version, status.checkpoint_failures, status.checkpoint_error) == (4, 2, "")
    assert metrics.calls == [("written", 1), "failed", "failed", ("written", 4)]
    assert replay(tmp_path).state.theta.tobytes() == load_theta(latest_checkpoint(tmp_path)).tobytes()
    assert [r.version for r in read_history(tmp_path)] == [1, 2, 3, 4]


def test_persist_writes_what_a_full_disk_rejected(tmp_path, monkeypatch):
    disk, learner = FullDisk(monkeypatch), start(tmp_path)
    disk.full = True
    feed(learner, 4)
    learner.persist()
    assert learner.status().durable_version == 0
    disk.full = False
    learner.persist()
    assert learner.status().durable_version == 1
    disk.full = True
    learner.persist()
    assert learner.status().checkpoint_error == ""  # nothing was left to write
    assert load_theta(latest_checkpoint(tmp_path)).tobytes() == ask(learner).theta


def test_aggregate_counts_as_many_samples(tmp_path):
    """Three workers' samples merged before the learner move theta as the three alone do, up to rounding."""
    made = [sample("w0", k) for k in range(4)]
    alone, joined = start(tmp_path / "alone"), start(tmp_path / "joined")
    for each in made:
        expected = send(alone, each)
    rp, es = (moments.combine_all((getattr(m, name) for m in made[:3]), SIZE) for name in ("rp", "es"))
    aggregate = sample("node", 0, pairs=3, rp=rp, es=es)
    assert send(joined, aggregate).version == 0
    reply = send(joined, made[3])
    assert reply.version == 1
    np.testing.assert_allclose(decode_theta(reply.theta), decode_theta(expected.theta), rtol=1e-6)


def test_superseded_learner_applies_no_aggregate(tmp_path):
    first = start(tmp_path)
    start(tmp_path)
    reply = send(first, sample("node", 0, pairs=4))
    assert reply.verdict is Verdict.wrong_epoch and reply.version == 0


def test_update_reaches_its_failpoints_in_order(tmp_path):
    points = []
    learner = start(tmp_path, failpoint=points.append)
    feed(learner, 3)
    points.clear()
    feed(learner, 1, first=3)
    assert points == ["after_reply", "before_reply", "after_reply", *POINTS[:11]]
    assert set(POINTS) - set(points) == set()


def test_raising_failpoint_costs_one_batch(tmp_path):
    armed = [False]

    def failpoint(point):
        if armed[0] and point == "before_merge":
            raise FailpointReached(point)

    learner = start(tmp_path, failpoint=failpoint)
    feed(learner, 3)
    armed[0] = True
    with pytest.raises(FailpointReached):
        feed(learner, 1, first=3)
    armed[0] = False
    assert feed(learner, 4, first=4)[-1].version == 1


def test_reply_carries_the_probe_rate(tmp_path):
    learner, random = start(tmp_path, config({"probe_rate": 0.25})), np.random.default_rng(0)
    for k in range(8 * 4):
        assert ask(learner).probe_rate == 1.0
        send(learner, sample(sequence=k, rp=moments.of(random.normal(0, 1e6, (1, SIZE)))))
    assert ask(learner).probe_rate == learner.status().probe_rate == 0.25
    assert ask(start(tmp_path, config({"probe_rate": 0.25}))).probe_rate == 0.25


def test_memory_is_bounded_by_the_batch(tmp_path):
    learner = start(tmp_path, config(batch_samples=4))
    for k in range(200):
        send(learner, sample(f"w{k}", 0))
        assert learner.status().batch < 4


@pytest.mark.parametrize("sigma", [0.1, 0.0])
def test_rp_alone_batch_without_a_pair_has_zero_gradient(tmp_path, sigma):
    """The first batch drops three of four pairs, the second drops all, through an aggregate or not."""
    settings = config({"use": "rp", "sigma": sigma}, optimizer="sgd", learning_rate=1.0, clip="none")
    learner = start(tmp_path, settings)
    empty, es = moments.empty(SIZE), {} if sigma else {"es": moments.empty(SIZE)}
    for k in range(4):
        rp = moments.of(np.full((1, SIZE), 0.5)) if k == 2 else empty
        first = send(learner, sample(sequence=k, rp=rp, **es))
    np.testing.assert_allclose(decode_theta(first.theta), THETA - 0.5, rtol=1e-6)
    group = [sample(sequence=k, version=1, rp=empty, **es) for k in range(4, 6)]
    aggregate = unpack_sample(pack_sample(merged([unpack_sample(pack_sample(s)) for s in group], "a", 1)))
    for made in (*group, aggregate):
        second = send(learner, made)
    assert (second.version, second.theta) == (2, first.theta)
    assert [(r.rp_dropped, r.rp_pairs, r.empty) for r in read_history(tmp_path)] == [(3, 1, False), (4, 0, True)]
    assert read_history(tmp_path)[1].norms.gradient == 0
