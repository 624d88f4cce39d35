"""Faults at the learner. The oracle: theta is the replay of the journal, bit for bit, and no sample is in it twice."""

import os
import random
import resource
import subprocess
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from helpers.learner import SIZE, THETA, ask, config, feed, run_directory, sample, send, start
from helpers.learner_process import Gone, LearnerProcess

from common import moments
from common.errors import UserError
from common.messages import Verdict, decode_theta, pack_sample, unpack_reply
from learner import checkpoints, lineage
from learner.checkpoints import latest_checkpoint, load_theta, path_of
from learner.failpoints import POINTS
from learner.history import read_history
from learner.journal import replay
from learner.lineage import Position

JOURNALED = {"journal": True, "optimizer": "adam", "updates": 10_000, "keep_checkpoints": 5}
REPEATS = int(os.environ.get("OUTERTRAIN_FAULT_REPEATS", "2"))


def assert_replay(run, theta):
    replayed = replay(run, load_version(run))
    assert replayed.state.theta.tobytes() == theta == load_theta(latest_checkpoint(run)).tobytes()
    assert len(set(replayed.names)) == len(replayed.names)
    return replayed


def load_version(run):
    return checkpoints.newest(run / "checkpoints", lineage.lineage(run / "epochs"))[0].version


class Sender:
    """A worker without a task: it repeats a sample under the same name until it is answered."""

    def __init__(self, uid):
        self.uid, self.sequence, self.reply, self.verdicts = uid, 0, None, []

    def step(self, exchange):
        if self.reply is None:
            self.reply = unpack_reply(exchange(None, -1, -1))
        payload = pack_sample(sample(self.uid, self.sequence, epoch=self.reply.epoch, version=self.reply.version))
        self.reply = unpack_reply(exchange(payload, self.reply.epoch, self.reply.version))
        self.verdicts.append(self.reply.verdict)
        self.sequence += 1
        return self.reply


def until_dead(process, senders):
    """The newest version that was published before the learner died."""
    published = -1
    try:
        for turn in range(200):
            published = max(published, senders[turn % len(senders)].step(process.exchange).version)
    except Gone:
        process.close()
        return published
    raise AssertionError("the failpoint was never reached")


@pytest.mark.faults
@pytest.mark.parametrize("point", POINTS)
def test_kill_at_any_point_loses_no_published_version(tmp_path, point):
    """Each incarnation is killed at the point; the next is up within 30 s and has every published version."""
    senders, published = [Sender(f"w{k}") for k in range(3)], 0
    for incarnation in range(REPEATS):
        nth = 9 + incarnation if point.endswith("reply") else 3 + incarnation % 2
        process = LearnerProcess(run_directory(tmp_path), JOURNALED, SIZE, f"{point}:{nth}")
        assert process.seconds_to_start < 30
        assert published <= load_version(tmp_path) <= published + 1
        before, published = published, max(published, until_dead(process, senders))
        assert published > before
    process = LearnerProcess(tmp_path, JOURNALED, SIZE)
    assert published <= load_version(tmp_path) <= published + 1
    for turn in range(12):
        last = senders[turn % 3].step(process.exchange)
    theta = unpack_reply(process.exchange(None, -1, -1)).theta
    process.close()
    assert_replay(tmp_path, theta)
    assert {v for s in senders for v in s.verdicts} <= {Verdict.accepted, Verdict.duplicate}
    assert last.version >= published + 2  # 12 exchanges, of which one may be a retry
    lines = read_history(tmp_path)
    assert [line.version for line in lines] == list(range(1, last.version + 1))


def test_corrupt_checkpoint_is_skipped_and_named(tmp_path, caplog):
    """Cut at every 64 bytes, and with a bit flipped in each 64: the one before is used, and a sentence says so."""
    learner = start(tmp_path, config(optimizer="adam"), np.zeros(1090, np.float32))
    for k in range(8):
        send(learner, sample(sequence=k, size=1090))
    folder, chain = tmp_path / "checkpoints", lineage.lineage(tmp_path / "epochs")
    path = path_of(folder, Position(1, 2))
    data = path.read_bytes()
    for position in range(0, len(data), 64):
        flipped = bytearray(data)
        flipped[position + position // 64 % min(64, len(data) - position)] ^= 1 << position // 64 % 8
        for corrupt in (data[:position], bytes(flipped)):
            path.write_bytes(corrupt)
            caplog.clear()
            place, record = checkpoints.newest(folder, chain)
            assert place == (1, 1) and record["version"] == 1
            [warning] = caplog.records
            assert str(path) in warning.message and "falling back to the checkpoint before it" in warning.message
    path.write_bytes(data)
    assert checkpoints.newest(folder, chain)[0] == (1, 2)


def test_dropped_replies_apply_each_sample_once(tmp_path):
    learner, sender = start(tmp_path, config(**JOURNALED | {"batch_samples": 50})), Sender("w0")

    def lossy(payload, known_epoch, version):
        first = learner.exchange(payload, known_epoch, version)
        return first if payload is None else learner.exchange(payload, known_epoch, version)

    for _ in range(1000):
        assert sender.step(lossy).verdict is Verdict.duplicate
    replayed = assert_replay(tmp_path, ask(learner).theta)
    assert replayed.names == [("w0", k) for k in range(1000)]
    assert learner.status().verdicts == {"accepted": 1000, "duplicate": 1000}


def hostile(random_, honest):
    """A payload that somebody who wants to break the learner would send."""
    kind = random_.randrange(6)
    data = bytearray(honest)
    if kind == 0:
        return random_.randbytes(random_.randrange(200))
    if kind == 1:
        return bytes(data[: random_.randrange(len(data))])
    if kind == 2:
        for _ in range(random_.randrange(1, 8)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        return bytes(data)
    if kind == 3:
        return random_.choice([b"\x91", b"\x81\xa1a", b"\xdc\xff\xff"]) * random_.randrange(1, 3000)
    if kind == 4:
        return random_.choice([b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff"]) + bytes(data)
    return hostile_numbers(random_)


def hostile_numbers(random_):
    """Well formed, and impossible."""
    value = random_.choice([float("nan"), float("inf"), -float("inf"), 1e30, 1e300, -1e9])
    wrong = moments.of(np.full((1, SIZE), value))
    count = random_.choice([1, 2, 100])
    fields = random_.choice(
        [
            dict(es=wrong),
            dict(rp=wrong, es=wrong),
            dict(loss_plus=(value,)),
            dict(version=random_.choice([5_000_000, 2**63 - 1])),
            dict(epoch=random_.choice([0, 7, 2**63 - 1])),
            dict(digest="e" * 64),
            dict(objective="valid"),
            dict(windows=(2**40,)),
            dict(pairs=count, windows=(20,) * count, es=moments.Moments(count, np.zeros(5), np.zeros(5))),
        ]
    )
    return pack_sample(sample("evil", random_.randrange(2**62), **fields))


def resident():
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("count", [3000, pytest.param(100_000, marks=pytest.mark.faults)])
def test_hostile_payloads_leave_honest_workers_unharmed(tmp_path, count, caplog):
    """Between them an honest worker is served. Memory grows by less than 8 MiB after the first tenth."""
    learner, honest = start(tmp_path, config(updates=10**6)), Sender("w0")
    random_, payload = random.Random(0), pack_sample(sample("evil", 0))
    for k in range(count):
        verdict = unpack_reply(learner.exchange(hostile(random_, payload), -1, -1)).verdict
        assert verdict is not None
        if k % 50 == 0:
            assert honest.step(learner.exchange).verdict is Verdict.accepted
            assert np.isfinite(decode_theta(ask(learner).theta)).all()
        if k == count // 10:
            before = resident()
    assert resident() - before < 8 << 20
    verdicts = learner.status().verdicts
    assert sum(verdicts.values()) == count + honest.sequence
    assert verdicts["malformed"] > count / 2
    assert {"wrong_run", "wrong_epoch", "non_finite"} <= verdicts.keys()
    assert len(caplog.records) < 200


def test_bad_samples_of_some_workers_leave_theta_of_es(tmp_path):
    """One worker in ten sends rp that exploded, or es beyond what losses can give: theta is finite at all times, all is
    counted, and es carries those batches: theta is bit for bit that of a clean run with es alone."""
    learner = start(tmp_path / "bad", config(batch_samples=10, journal=True))
    clean = start(tmp_path / "clean", config({"use": "es"}, batch_samples=10))
    bad = [np.nan, np.inf, -np.inf, 1e30]
    for k in range(100):
        version = ask(learner).version
        made = sample(f"w{k % 10}", k, epoch=1, version=version)
        assert send(clean, made).verdict is Verdict.accepted
        if k % 10 == 3:
            impossible = made._replace(es=moments.of(np.full((1, SIZE), 1e12)))
            assert send(learner, impossible).verdict is Verdict.malformed
            made = made._replace(rp=moments.of(np.full((1, SIZE), bad[k // 10 % 4])))
        assert send(learner, made).verdict is Verdict.accepted
        assert np.isfinite(decode_theta(ask(learner).theta)).all()
    lines = read_history(tmp_path / "bad")
    assert [line.rp_nonfinite for line in lines] == [1] * 10
    assert all(line.rp_fallback == SIZE and line.weight_rp.quantiles.q95 == 0 for line in lines)
    assert learner.status().verdicts == {"accepted": 100, "malformed": 10}
    assert ask(learner).theta == ask(clean).theta
    assert_replay(tmp_path / "bad", ask(learner).theta)


@contextmanager
def no_file_beyond(size):
    """The kernel cuts off writes beyond `size` bytes of a file, as a disk that fills up in mid-write does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 100, 700, 1500])
def test_writes_cut_in_the_middle_lose_nothing(tmp_path, size):
    learner = start(tmp_path, config(**JOURNALED))
    feed(learner, 8)
    with no_file_beyond(size):
        assert feed(learner, 8, first=8)[-1].version == 4
        status = learner.status()
        assert load_theta(latest_checkpoint(tmp_path)).shape == (SIZE,)
    assert status.durable_version == 2 and status.checkpoint_failures == 2
    assert "File too large" in status.checkpoint_error
    feed(learner, 4, first=16)
    assert learner.status().durable_version == 5
    assert_replay(tmp_path, ask(learner).theta)
    assert [line.version for line in read_history(tmp_path)] == [1, 2, 3, 4, 5]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_crash_on_a_full_disk_costs_what_was_not_durable(tmp_path):
    """Its successor cannot start while the disk is full, and then resumes from the last durable version."""
    learner = start(tmp_path, config(**JOURNALED))
    feed(learner, 8)
    with no_file_beyond(300):
        feed(learner, 8, first=8)
        with pytest.raises(UserError, match="cannot write in"):
            start(tmp_path, config(**JOURNALED))
    assert replay(tmp_path).state.version == 2
    successor = start(tmp_path, config(**JOURNALED))
    assert ask(successor).version == 2
    feed(successor, 8, first=8)
    assert_replay(tmp_path, ask(successor).theta)
    assert [line.version for line in read_history(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.faults
def test_real_full_disk_does_not_stop_training(tmp_path):
    """A file system of 256 KiB, filled by another program: training continues, and is durable again when space is freed."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], check=True)
    try:
        learner = start(tmp_path, config(**JOURNALED))
        feed(learner, 8)
        with pytest.raises(OSError, match="No space left"), open(tmp_path / "movie", "wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        assert feed(learner, 40, first=8)[-1].version == 12
        status = learner.status()
        assert status.durable_version == 2 and status.checkpoint_failures == 10
        assert checkpoints.newest(tmp_path / "checkpoints", lineage.lineage(tmp_path / "epochs"))[0] == (1, 2)
        (tmp_path / "movie").unlink()
        feed(learner, 4, first=48)
        assert learner.status().durable_version == 13
        assert_replay(tmp_path, ask(learner).theta)
        assert [line.version for line in read_history(tmp_path)] == list(range(1, 14))
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_two_learners_one_lineage_is_read(tmp_path, monkeypatch):
    """The first is cut off and does not see the second; both write in turns."""
    first = start(tmp_path, config(**JOURNALED))
    feed(first, 12)
    monkeypatch.setattr(first._store, "superseded", lambda: False)
    second = start(tmp_path, config(**JOURNALED))
    for k in range(8):
        feed(first, 4, first=100 + 4 * k, worker="cut")
        replies = feed(second, 4, first=200 + 4 * k, worker="near")
    assert (ask(first).epoch, ask(first).version) == (1, 11) and (ask(second).epoch, ask(second).version) == (2, 11)
    replayed = assert_replay(tmp_path, replies[-1].theta or ask(second).theta)
    assert replayed.names == [("w0", k) for k in range(12)] + [("near", k) for k in range(200, 232)]
    assert [(r.epoch, r.version) for r in read_history(tmp_path)] == [(1, v) for v in (1, 2, 3)] + [
        (2, v) for v in range(4, 12)
    ]
    third = start(tmp_path, config(**JOURNALED))
    assert ask(third).theta == ask(second).theta
    assert send(third, sample("cut", 500, epoch=1, version=11)).verdict is Verdict.wrong_epoch
    assert send(third, sample("cut", 500, epoch=1, version=3)).verdict is Verdict.accepted
    assert send(third, sample("near", 231, epoch=2, version=10)).verdict is Verdict.duplicate


def test_flood_of_stale_samples_changes_nothing(tmp_path):
    calm = start(tmp_path / "calm", config(max_staleness=0))
    flooded = start(tmp_path / "flooded", config(max_staleness=0))
    for learner in (calm, flooded):
        feed(learner, 4)
    for k in range(8):
        feed(calm, 1, first=4 + k)
        for j in range(50):
            assert send(flooded, sample(f"slow{j}", k, version=0)).verdict is Verdict.stale
        feed(flooded, 1, first=4 + k)
    assert ask(calm).theta == ask(flooded).theta != THETA.tobytes()
    assert flooded.status().verdicts["stale"] == 400
    assert flooded.status().workers_known == 1
