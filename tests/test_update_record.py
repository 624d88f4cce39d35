"""Records of updates: their JSON is the line of history.jsonl, and nothing else is read as one."""

import json
from pathlib import Path

import pytest

from common.update_record import Allocation, UpdateRecord

LATER = (
    "rp_dropped",
    "var_rp_nonfinite",
    "rp_clipped",
    "core_seconds",
    "cpu_seconds",
    "allocation",
)  # of a later release, written only where it says something
GOLDEN = (Path(__file__).parent / "helpers" / "golden_history.jsonl").read_text()


def test_json_of_a_record_is_the_line_it_was_read_from() -> None:
    record = UpdateRecord.from_json(json.loads(GOLDEN))
    assert json.dumps(record.to_json(), allow_nan=False) + "\n" == GOLDEN
    assert (record.version, record.windows.max, record.weight_rp.quantiles.q50) == (8, 60, 0.19911787371493223)
    assert (record.norms.theta, record.verdicts, record.refused) == (
        4.898979485566356,
        {"accepted": 24, "stale": 1},
        False,
    )


@pytest.mark.parametrize("key", [key for key in json.loads(GOLDEN) if key not in LATER])
def test_from_json_missing_or_foreign_value_is_an_error(key: str) -> None:
    line = json.loads(GOLDEN)
    for value in ([], "text"):
        with pytest.raises(ValueError, match=key.removeprefix("gradient_")):
            UpdateRecord.from_json(line | {key: value})
    del line[key]
    with pytest.raises(ValueError, match=key):
        UpdateRecord.from_json(line)


def test_from_json_later_key_is_optional_and_checked() -> None:
    line = json.loads(GOLDEN)
    for key in LATER:
        with pytest.raises(ValueError, match=key):
            UpdateRecord.from_json(line | {key: "text"})
    earlier = UpdateRecord.from_json({key: value for key, value in line.items() if key not in LATER})
    assert (earlier.rp_dropped, earlier.var_rp_nonfinite, earlier.rp_clipped, earlier.core_seconds) == (0, 0.0, 0, 0.0)


def test_json_of_an_allocation_is_written_only_with_it() -> None:
    record = UpdateRecord.from_json(json.loads(GOLDEN))
    allocated = record._replace(allocation=Allocation(0.05, 0.7, 0.72), cpu_seconds=1.5)
    assert UpdateRecord.from_json(json.loads(json.dumps(allocated.to_json()))) == allocated
    assert not {"allocation", "cpu_seconds"} & record.to_json().keys()


def test_from_json_unknown_key_is_ignored() -> None:
    line = json.loads(GOLDEN)
    assert UpdateRecord.from_json(line | {"of a later version": 1}) == UpdateRecord.from_json(line)


def test_json_of_dropped_pairs_is_written_only_if_there_are_any() -> None:
    record = UpdateRecord.from_json(json.loads(GOLDEN))
    for pairs, empty in ((2, False), (0, True)):
        line = record._replace(rp_dropped=3, rp_pairs=pairs).to_json()
        assert (line["rp_dropped"], line["empty"]) == (3, empty)
        assert UpdateRecord.from_json(line).rp_dropped == 3 and "rp_dropped" not in record.to_json()
    assert "rp_clipped" in record.to_json() and "rp_clipped" not in record._replace(rp_clipped=0).to_json()
