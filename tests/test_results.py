"""Results of an evaluation on disk: what is read is what was written, and the seconds are those of the protocol."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import run_files

from common.errors import UserError
from workers.evaluation.results import TimingResult, UnrollResult, is_current, parse, read, timing_prefix

ADAM = run_files.constant_result("adam", 0, 1.0, rate=0.1)
TIMING = TimingResult("timing-x", {"adam": 0.25}, {"adam": (0.2, 0.3)})


def write(folder: Path, *lines: dict) -> Path:
    (folder / "unrolls.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_unroll_result_survives_a_line_of_json() -> None:
    line = run_files.unroll("adam", 0.1, 3, 0)
    result = UnrollResult.from_json(json.loads(json.dumps(line)))
    assert result.to_json() == {**line, "stopped": None}
    assert UnrollResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_timing_result_survives_a_line_of_json() -> None:
    line = json.loads(json.dumps(TIMING.to_json()))
    assert (line["outer_split"], line["optimizer"]) == ("none", "timing")
    assert TimingResult.from_json(line) == TIMING


def test_mean_is_that_of_the_split() -> None:
    result = UnrollResult.from_json(run_files.unroll("adam", 0.1, 3, 0))
    assert [result.mean(s) for s in ("train", "valid", "test")] == list(result.means)


def test_read_counts_the_last_line_of_a_job(tmp_path: Path) -> None:
    lines = [ADAM.to_json() | {"final_test_accuracy": accuracy} for accuracy in (0.1, 0.2)]
    assert [u.final_test_accuracy for u in read(write(tmp_path, *lines))] == [0.2]


def test_parse_takes_the_seconds_of_the_timing_protocol() -> None:
    learned = run_files.constant_result("learned", 0, 1.0, theta_sha256="a")
    unrolls = parse([TIMING.to_json(), ADAM.to_json(), learned.to_json()])
    assert [(u.optimizer, u.seconds_per_step) for u in unrolls] == [("adam", 0.25), ("learned", 0.5)]


def test_results_of_older_versions_are_not_current() -> None:
    """Those without blocks, whose trailing means would be over 4 % of the steps instead of 5."""
    line = run_files.unroll("adam", 0.1, 3, 0)
    old = {key: value for key, value in line.items() if key != "losses"}
    assert is_current(line) and is_current(TIMING.to_json()) and not is_current(old)
    assert UnrollResult.from_json(line).scored and not UnrollResult.from_json(old).scored
    assert UnrollResult.from_json(old).final("train") == np.inf


def test_read_of_no_file_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path) == []


def test_read_of_a_line_that_is_no_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unrolls.jsonl is corrupt .*KeyError 'train'.*delete that line"):
        read(write(tmp_path, {k: v for k, v in ADAM.to_json().items() if k != "train"}))


def test_trailing_means_keep_small_losses_after_large_ones() -> None:
    blocks = tuple(10 * 0.7**k for k in range(200))
    result = replace(ADAM, steps=(1, 400), blocks=blocks)
    steps, means = result.trailing()
    assert steps[-1] == 400
    np.testing.assert_allclose(means, [np.mean(blocks[k : k + 10]) for k in range(191)], rtol=1e-12)


def test_unroll_takes_the_timing_of_its_theta_with_its_name() -> None:
    digest = "0123456789abcdef" * 4
    learned = replace(ADAM, optimizer="learned", theta_sha256=digest)
    lines = [
        replace(learned, name="a").to_json(),
        ADAM.to_json(),
        TimingResult(f"{timing_prefix(digest)}-1", {"learned": 0.5}, {"learned": (0.5, 0.5)}).to_json(),
        TIMING.to_json(),
    ]
    assert [u.seconds_per_step for u in parse(lines)] == [0.5, 0.25]
