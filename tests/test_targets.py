"""Target files: Prometheus reads them at any moment, and one names the endpoint that lives."""

import json
import os
from pathlib import Path

import pytest

from cluster.monitoring.targets import (
    FOLDER_VARIABLE,
    forget_targets,
    read_address,
    remove_targets,
    target_text,
    write_targets,
)
from common.errors import UserError


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_target_is_written_moved_and_removed(run_dir: Path) -> None:
    write_targets(run_dir, "night", "learner", "127.0.0.1", 9000)
    paths = write_targets(run_dir, "night", "learner", "127.0.0.1", 9001)
    [group] = json.loads(paths[0].read_text())
    assert group["targets"] == ["127.0.0.1:9001"]
    assert group["labels"] == {"job": "outertrain", "run": "night", "role": "learner"}
    assert read_address(run_dir) == "127.0.0.1:9001"
    assert [p.name for p in run_dir.iterdir()] == ["metrics-learner.json"]
    remove_targets(paths)
    remove_targets(paths)
    assert read_address(run_dir) is None


def test_beside_prometheus_the_name_tells_the_run(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "targets"
    beside.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(beside))
    paths = write_targets(run_dir, "night", "fleet", "127.0.0.1", 9000)
    assert paths == [run_dir / "metrics-fleet.json", beside / "outertrain-night-fleet.json"]
    assert paths[0].read_text() == paths[1].read_text()
    assert read_address(run_dir, "fleet") == "127.0.0.1:9000"
    forget_targets(run_dir, "night", "learner")
    assert all(path.exists() for path in paths)
    forget_targets(run_dir, "night", "fleet")
    assert not any(path.exists() for path in paths)


def test_an_endpoint_on_all_interfaces_is_announced_by_an_address_that_others_reach() -> None:
    [target] = json.loads(target_text("r", "learner", "0.0.0.0", 9000))[0]["targets"]
    assert target.endswith(":9000") and not target.startswith("0.0.0.0")
    assert json.loads(target_text("r", "learner", "::1", 9000))[0]["targets"] == ["[::1]:9000"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '[{"targets": []}]', "null"])
def test_a_file_that_says_nothing_is_no_address(run_dir: Path, content: str) -> None:
    (run_dir / "metrics-learner.json").write_text(content)
    assert read_address(run_dir) is None


def test_a_folder_that_is_missing_is_a_sentence(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, os.path.join(run_dir, "nowhere"))
    with pytest.raises(UserError, match=rf"cannot write Prometheus's target file .*nowhere.*unset {FOLDER_VARIABLE}"):
        write_targets(run_dir, "night", "learner", "127.0.0.1", 9000)
