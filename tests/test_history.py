import errno
import json
import os

import numpy as np
import pytest
from helpers.learner import SEGMENTS, SIZE, sample

from common import moments
from common.jsonlines import Writer
from learner.history import describe_samples, describe_step, read_history, read_newest
from learner.lineage import Position, claim
from learner.merge import Rule, merge
from learner.outer_optimizer import Step

RULE = Rule("merged", "coordinate", False, SEGMENTS)
STEP = Step(np.full(SIZE, 2.0, np.float32), None, 3.0, 0.5, 0.25, False)


def line(epoch, version):
    return {"epoch": epoch, "version": version, "loss": version / 2}


def append(log, entry):
    log.add(entry)
    log.flush()


def places(run):
    return [(r["epoch"], r["version"]) for r in read_history(run)]


def test_a_run_without_history_is_empty(tmp_path):
    assert read_history(tmp_path) == []


def test_lines_past_the_parent_are_ignored(tmp_path):
    claim(tmp_path / "epochs", None, 0.0)
    claim(tmp_path / "epochs", Position(1, 2), 0.0)
    log = Writer(tmp_path / "history.jsonl")
    for place in ((1, 1), (1, 2), (1, 3), (2, 3), (1, 4), (2, 4)):
        append(log, line(*place))
    assert places(tmp_path) == [(1, 1), (1, 2), (2, 3), (2, 4)]


def test_torn_and_foreign_lines_are_skipped_and_the_next_is_whole(tmp_path):
    claim(tmp_path / "epochs", None, 0.0)
    path = tmp_path / "history.jsonl"
    path.write_bytes(json.dumps(line(1, 1)).encode() + b'\n[]\n{"version": "x"}\n\xff\xfe\n{"epoch": 1, "ver')
    append(Writer(path), line(1, 2))
    assert places(tmp_path) == [(1, 1), (1, 2)]


def test_another_life_appends_without_a_gap(tmp_path):
    for version in (1, 2):
        append(Writer(tmp_path / "history.jsonl"), line(1, version))
    assert (tmp_path / "history.jsonl").read_bytes().count(b"\n") == 2


def test_the_newest_lines_are_read_from_the_end_of_the_file(tmp_path):
    """Whatever the file holds between them: lines of a life that does not count, torn ones, and none at all."""
    assert read_newest(tmp_path, 3) == []
    claim(tmp_path / "epochs", None, 0.0)
    log = Writer(tmp_path / "history.jsonl")
    first, second = (1, range(1, 400)), (2, range(391, 395))
    late = (1, range(400, 3000))  # by the first life, which does not know that it was superseded
    for epoch, versions in (first, second, late):
        if epoch == 2:
            claim(tmp_path / "epochs", Position(1, 390), 0.0)
        for version in versions:
            append(log, line(epoch, version))
    with open(tmp_path / "history.jsonl", "ab") as file:
        file.write(b'{"epoch": 2, "ver')
    for count in (1, 3, 20, 394, 1000):
        assert read_newest(tmp_path, count) == read_history(tmp_path)[-count:]
    assert len(read_history(tmp_path)) == 394 and (tmp_path / "history.jsonl").stat().st_size > 2**16


def test_a_full_disk_loses_no_line(tmp_path, monkeypatch):
    """Half a line is written, then nothing for a while: when there is room again all lines are there, each once."""
    claim(tmp_path / "epochs", None, 0.0)
    log, real, room = Writer(tmp_path / "history.jsonl"), os.write, [10_000]

    def write(descriptor, data):
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    append(log, line(1, 1))
    room[0] = 12
    for version in (2, 3):
        with pytest.raises(OSError, match="No space"):
            append(log, line(1, version))
    room[0] = 10_000
    append(log, line(1, 4))
    assert places(tmp_path) == [(1, 1), (1, 2), (1, 3), (1, 4)]


def test_what_waits_is_bounded(tmp_path):
    log = Writer(tmp_path / "missing" / "history.jsonl")
    for version in range(1500):
        with pytest.raises(OSError, match="No such file"):
            append(log, line(1, version))
    assert len(log._waiting) == 1000


def test_a_batch_in_numbers():
    samples = [
        sample("a", 0, version=7, windows=(10,), loss_plus=(1.0,), loss_minus=(2.0,), facts={"inner_steps": 20.0}),
        sample("a", 1, version=4, windows=(30,), loss_plus=(3.0,), loss_minus=(6.0,), facts={"diverged": 1.0}),
        sample("b", 0, version=7, windows=(50,), loss_plus=(5.0,), loss_minus=(1.0,), facts={"finished": 2.0}),
    ]
    samples[1] = samples[1]._replace(rp=moments.of(np.array([[0, 0, np.nan, 0, 0, 0]])))
    assert describe_samples(samples, 7, 1) == {
        "loss": 3.0,
        "loss_plus": 3.0,
        "loss_minus": 3.0,
        "samples": 3,
        "inner_steps": 20,
        "windows": {"mean": 30.0, "min": 10, "max": 50},
        "staleness": {"mean": 1.0, "max": 3},
        "diverged": 1,
        "finished": 2,
        "workers_seen": 2,
        "rp_nonfinite": 1,
    }


def test_pairs_count_alike_whoever_sent_them():
    samples = [
        sample(pairs=3, loss_plus=(1.0, 1.0, 1.0), loss_minus=(1.0, 1.0, 1.0)),
        sample("b", loss_plus=(5.0,), loss_minus=(5.0,)),
    ]
    described = describe_samples(samples, 0, 1)
    assert (described["loss"], described["samples"]) == (2.0, 4)


def test_a_step_in_numbers():
    rows = np.random.default_rng(0).normal(size=(2, 4, SIZE))
    samples = [sample("a", k, rp=moments.of(rows[0, k : k + 1]), es=moments.of(rows[1, k : k + 1])) for k in range(4)]
    merged = merge(samples, RULE)
    described = describe_step(merged, STEP)
    for name, own in (("var_rp", rows[0]), ("var_es", rows[1])):
        assert described[name]["q25"] == pytest.approx(np.quantile(own.var(axis=0, ddof=1), 0.25))
    assert described["weight_rp"]["mean"] == pytest.approx(merged.weight_rp.mean())
    assert described["weight_rp"]["q95"] == pytest.approx(np.quantile(merged.weight_rp, 0.95))
    assert (described["rp_pairs"], described["es_pairs"], described["rp_fallback"]) == (4, 4, 0)
    assert (described["gradient_norm"], described["clipped"], described["update_norm"]) == (3.0, 0.5, 0.25)
    assert described["theta_norm"] == pytest.approx(2 * SIZE**0.5)


def test_what_is_unknown_is_null_and_every_line_is_json(tmp_path):
    rp = moments.of(np.array([[np.nan, 1, 1, 1, 1, 1]]))
    merged = merge([sample("a", 0, rp=rp)], RULE)
    described = describe_step(merged, STEP._replace(gradient_norm=float("inf")))
    assert described["var_rp"] == dict.fromkeys(("q05", "q25", "q50", "q75", "q95"))
    assert described["rp_fallback"] == 1
    assert described["gradient_norm"] > 1e308
    append(Writer(tmp_path / "h.jsonl"), described)
    assert json.loads((tmp_path / "h.jsonl").read_text()) == described
