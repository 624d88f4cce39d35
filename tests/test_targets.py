"""Target files: atomic for Prometheus, named by run and role, and gone when their process has ended."""

import json
import os
from pathlib import Path

import pytest

from cluster.monitoring.targets import FOLDER_VARIABLE, read_address, remove_targets, target_text, write_targets
from cluster.runs.directory import RunDirectory
from common.errors import UserError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    (tmp_path / "night").mkdir()
    return RunDirectory(tmp_path / "night")


def test_target_file_is_written_replaced_and_removed(run: RunDirectory) -> None:
    write_targets(run, "learner", "127.0.0.1", 9000)
    [path] = write_targets(run, "learner", "127.0.0.1", 9001)
    [group] = json.loads(path.read_text())
    assert group["targets"] == ["127.0.0.1:9001"]
    assert group["labels"] == {"job": "outertrain", "run": "night", "role": "learner"}
    assert read_address(run, "learner") == "127.0.0.1:9001"
    assert [p.name for p in run.path.iterdir()] == ["metrics-learner.json"]
    remove_targets(run, "learner")
    remove_targets(run, "learner")
    assert read_address(run, "learner") is None


def test_target_file_in_second_folder_is_named_by_the_run(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "targets"
    second.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(second))
    paths = write_targets(run, "fleet", "127.0.0.1", 9000)
    assert paths == [run.path / "metrics-fleet.json", second / "outertrain-night-fleet.json"]
    assert paths[0].read_text() == paths[1].read_text()
    assert read_address(run, "fleet") == "127.0.0.1:9000"
    remove_targets(run, "learner")
    assert all(path.exists() for path in paths)
    remove_targets(run, "fleet")
    assert not any(path.exists() for path in paths)


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0])
def test_target_files_are_readable_by_prometheus_under_any_umask(run: RunDirectory, umask: int) -> None:
    before = os.umask(umask)
    try:
        [path] = write_targets(run, "learner", "127.0.0.1", 9000)
        [path] = write_targets(run, "learner", "127.0.0.1", 9001)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_target_text_wildcard_address_becomes_the_nodes_own() -> None:
    [target] = json.loads(target_text("r", "learner", "0.0.0.0", 9000))[0]["targets"]
    assert target.endswith(":9000") and not target.startswith("0.0.0.0")
    assert json.loads(target_text("r", "learner", "::1", 9000))[0]["targets"] == ["[::1]:9000"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '[{"targets": []}]', "null"])
def test_read_address_of_an_invalid_file_is_none(run: RunDirectory, content: str) -> None:
    run.target_file("learner").write_text(content)
    assert read_address(run, "learner") is None


def test_write_targets_missing_folder_is_a_user_error(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, os.path.join(run.path, "nowhere"))
    with pytest.raises(UserError, match=rf"cannot write Prometheus's target file .*nowhere.*unset {FOLDER_VARIABLE}"):
        write_targets(run, "learner", "127.0.0.1", 9000)
