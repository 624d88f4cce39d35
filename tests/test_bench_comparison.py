"""Two answers of the benchmark: what is better, worse or undecided, and files that are no answer."""

import json

import pytest

from cluster.cli.main import main
from common.errors import UserError
from workers.bench import comparison
from workers.bench.comparison import BETTER, DIFFERENT, UNDECIDED, WORSE, Change, compare, described, read
from workers.bench.figure import Outcome


def outcome(value, spread=None, name="pair", what="a pair", sense="at most"):
    return Outcome(name, what, value, spread, sense=sense)


@pytest.mark.parametrize(
    ("sense", "before", "now", "verdict"),
    [
        ("at most", (7.0, 7.2), (6.0, 6.2), BETTER),
        ("at most", (6.0, 6.2), (7.0, 7.2), WORSE),
        ("at least", (0.5, 0.6), (0.7, 0.8), BETTER),
        ("at least", (0.7, 0.8), (0.5, 0.6), WORSE),
        ("at most", (7.0, 7.2), (7.1, 7.5), UNDECIDED),
        ("at most", (7.0, 7.2), (7.3, 7.5), UNDECIDED),  # as far apart as two processes are
    ],
)
def test_verdict_is_undecided_within_the_noise_of_both(sense, before, now, verdict):
    assert comparison.verdict(outcome(sum(before) / 2, before), outcome(sum(now) / 2, now, sense=sense)) == verdict


def test_verdict_of_a_single_value_has_the_noise_of_processes():
    assert comparison.verdict(outcome(379.0), outcome(384.0)) == UNDECIDED
    assert comparison.verdict(outcome(379.0), outcome(400.0)) == WORSE


def test_verdict_of_another_definition_compares_nothing():
    assert comparison.verdict(outcome(7.0), outcome(3.0, what="half a pair")) == DIFFERENT


def test_compare_takes_figures_that_both_have_measured():
    before = {"pair": outcome(8.0), "lost": outcome(1.0, name="lost"), "zero": outcome(0.0, name="zero")}
    now = [outcome(4.0), outcome(1.0, name="new"), outcome(None, name="lost"), outcome(0.0, name="zero")]
    assert compare(before, now) == [Change("pair", 8.0, 4.0, 0.5, BETTER), Change("zero", 0.0, 0.0, None, UNDECIDED)]


def test_read_takes_what_bench_has_printed(tmp_path):
    file = tmp_path / "before.json"
    record = outcome(7.24, (7.23, 7.29))._asdict()
    file.write_text(json.dumps({"machine": {"processor": "AMD EPYC", "cores": 2}, "figures": [record]}))
    assert read(file) == comparison.Answer("AMD EPYC, 2 cores", {"pair": outcome(7.24, (7.23, 7.29), sense="at least")})
    assert described({"processor": "x", "instructions": "AVX2", "cores": 8}) == "x, AVX2, 8 cores"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{}",
        '{"figures": [3]}',
        '{"figures": [{"value": 1}]}',
        '{"figures": [{"figure": "pair", "what": "", "value": "7"}]}',
        '{"figures": [{"figure": "pair", "what": "", "value": 7, "spread": [1]}]}',
        "[" * 100_000,
    ],
)
def test_read_of_another_file_is_a_user_error(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"other\.json is no answer of `outertrain bench --json` \("):
        read(file)


def test_bench_refuses_a_bad_file_before_it_measures(tmp_path, capsys):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, why in (("missing", "no such file"), (".", "is a directory"), ("binary", "it is no text")):
        assert main(["bench", "pair", "--compare", str(tmp_path / name)]) == 2
        said = capsys.readouterr()
        assert why in said.err and said.err.count("\n") == 1 and said.out == ""
