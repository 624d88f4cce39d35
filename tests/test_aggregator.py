"""The aggregator: what it sends for many is what the many would have given, and each counts once."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import learner as learning

from cluster.monitoring.metrics import LearnerMetrics
from common.facts import Facts
from common.messages import Verdict, pack_sample, unpack_reply, unpack_sample
from learner.aggregator import Aggregator, merged
from learner.journal import replay
from learner.learner import Learner


class RecordingClient:
    """The exchange of a learner, which records the samples that were sent."""

    def __init__(self, learner: Learner):
        self.learner, self.sent = learner, []

    def __call__(self, payload: bytes | None, epoch: int, version: int) -> bytes:
        if payload is not None:
            self.sent.append(unpack_sample(payload))
        return self.learner.exchange(payload, epoch, version)


def make(path: Path, size: int = 2, **outer: object) -> tuple[Aggregator, RecordingClient, Learner]:
    settings = learning.config(**outer)
    learner = learning.start(path, settings)
    client = RecordingClient(learner)
    return Aggregator(settings, "aggregator-1", client, size), client, learner


def test_aggregator_theta_equals_that_of_single_samples(tmp_path: Path) -> None:
    aggregator, client, behind = make(tmp_path / "a", size=4, batch_samples=8, journal=True)
    direct = learning.start(tmp_path / "b", learning.config(batch_samples=8))
    for sequence in range(4):
        version = learning.ask(direct).version
        for worker in ("w0", "w1", "w2", "w3"):
            made = learning.sample(worker, sequence, version=version)
            assert learning.send(aggregator, made).verdict is Verdict.accepted
            assert learning.send(direct, made).verdict is Verdict.accepted
    assert [len(s.windows) for s in client.sent] == [4, 4, 4, 4] and behind.status().version == 2
    ours, theirs = (np.frombuffer(learning.ask(x).theta or b"", "<f4") for x in (aggregator, direct))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)
    assert [s.facts.inner_steps for s in client.sent] == [160.0] * 4
    assert replay(tmp_path / "a").state.theta.tobytes() == ours.tobytes()


def test_aggregator_separates_samples_of_other_parameters(tmp_path: Path) -> None:
    aggregator, client, _ = make(tmp_path, size=3, batch_samples=3)
    for k in range(4):  # the third fills a batch: version 1
        learning.send(aggregator, learning.sample("w0", k))
    learning.send(aggregator, learning.sample("w1", 0, version=1))
    assert [(s.version, len(s.windows)) for s in client.sent] == [(0, 3), (0, 1)]


def test_aggregator_retry_counts_once_and_names_are_unique(tmp_path: Path) -> None:
    aggregator, client, learner = make(tmp_path)
    first = learning.sample("w0", 0)
    assert learning.send(aggregator, first).verdict is Verdict.accepted
    assert learning.send(aggregator, first).verdict is Verdict.duplicate
    for k in range(1, 4):
        learning.send(aggregator, learning.sample("w0", k))
    assert [(s.worker, s.sequence) for s in client.sent] == [("aggregator-1", 1), ("aggregator-1", 2)]
    assert learner.status().verdicts == {"accepted": 4}


@pytest.mark.parametrize(
    "fields, verdict",
    [
        ({"digest": "e" * 64}, Verdict.wrong_run),
        ({"epoch": 7}, Verdict.wrong_epoch),
        ({"loss_plus": (float("nan"),)}, Verdict.non_finite),
        ({"loss_plus": (99.0,)}, Verdict.malformed),
    ],
)
def test_aggregator_forwards_invalid_samples_unchanged(tmp_path: Path, fields: dict, verdict: Verdict) -> None:
    aggregator, client, _ = make(tmp_path)
    learning.send(aggregator, learning.sample("w0", 0))
    assert learning.send(aggregator, learning.sample("bad", 0, **fields)).verdict is verdict
    assert learning.send(aggregator, learning.sample("w1", 0)).verdict is Verdict.accepted
    assert [s.worker for s in client.sent] == ["bad", "aggregator-1"] and len(client.sent[-1].windows) == 2


def test_aggregator_forwards_foreign_bytes(tmp_path: Path) -> None:
    settings = learning.config()
    aggregator = Aggregator(settings, "aggregator-1", learning.start(tmp_path, settings).exchange, 2)
    assert unpack_reply(aggregator.exchange(b"nonsense", 0, 0)).verdict is Verdict.malformed


def test_aggregator_replies_with_newer_parameters_and_stop(tmp_path: Path) -> None:
    aggregator, _, learner = make(tmp_path, size=1, batch_samples=1, updates=2)
    reply = learning.ask(aggregator)
    assert reply.theta is not None and reply.version == 0 and not reply.stop
    assert learning.ask(aggregator, (reply.epoch, reply.version)).theta is None
    reply = learning.send(aggregator, learning.sample("w0", 0), (1, 0))
    assert (reply.version, reply.theta is not None, reply.stop) == (1, True, False)
    reply = learning.send(aggregator, learning.sample("w0", 1, version=1), (1, 1))
    assert (reply.version, reply.stop) == (2, True) and learner.finished


def test_aggregator_group_is_at_most_a_batch(tmp_path: Path) -> None:
    aggregator, client, learner = make(tmp_path, size=100, batch_samples=4)
    for k in range(4):
        learning.send(aggregator, learning.sample("w0", k))
    assert len(client.sent[0].windows) == 4 and learner.status().version == 1
    assert len(pack_sample(client.sent[0])) < 2000


def test_aggregator_sends_in_order_over_a_slow_client(tmp_path: Path) -> None:
    """The learner takes a number after a higher one for a repetition, and would drop what workers know as accepted."""
    aggregator, client, _ = make(tmp_path, size=2, batch_samples=64)
    learning.ask(aggregator)
    pauses = np.random.default_rng(0)

    def slow(payload: bytes | None, epoch: int, version: int) -> bytes:
        time.sleep(pauses.uniform(0, 0.005))
        return client(payload, epoch, version)

    aggregator._upstream = slow
    with ThreadPoolExecutor(16) as threads:
        made = [learning.sample(f"w{k}", 0) for k in range(60)]
        verdicts = {reply.verdict for reply in threads.map(lambda one: learning.send(aggregator, one), made)}
    assert verdicts == {Verdict.accepted}
    assert [s.sequence for s in client.sent] == list(range(1, 31))
    assert client.learner.status().verdicts == {"accepted": 60}


def test_aggregates_are_counted_by_their_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only the log counts messages: it has the 1st, 2nd and 4th rejection of a kind."""
    metrics = LearnerMetrics()
    settings = learning.config({"pairs": 2}, batch_samples=4, updates=1)
    learner = learning.start(tmp_path, settings, observer=metrics)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    for k in range(6):
        group = [learning.sample(f"w{i}", k, pairs=2) for i in range(4)]
        learning.send(learner, merged(group, "a", k))
    assert learner.status().verdicts == {"accepted": 4, "stale": 20}
    assert value("outertrain_samples_total", verdict="accepted") == 4
    assert value("outertrain_samples_total", verdict="stale") == 20
    assert value("outertrain_staleness_versions_count") == 24 and value("outertrain_payload_bytes_count") == 6
    assert [r.args[1] for r in caplog.records if "rejected as" in r.msg] == [1, 2, 4]
    learner.exchange(b"junk", 1, 0)
    learning.send(learner, merged(group, "b", 0)._replace(digest="e" * 64))
    assert learner.status().verdicts == {"accepted": 4, "stale": 20, "malformed": 1, "wrong_run": 1}


def test_merged_adds_counts_and_averages_durations() -> None:
    one = learning.sample("w0", 0)._replace(seconds=1.0, facts=Facts(40.0, task_seconds=0.5))
    two = learning.sample("w1", 0)._replace(seconds=3.0, facts=Facts(60.0, task_seconds=1.5))
    both = merged([two, one], "a", 1)
    assert both.seconds == 2.0 and both.facts == Facts(100.0, task_seconds=1.0)
