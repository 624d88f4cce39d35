"""Run directories: created atomically, used by one process at a time, with a sentence for what is wrong."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.runs import directory
from cluster.runs.directory import RunDirectory, create, create_free, discard, exclusive, find, free_name, names
from common.config import Config
from common.errors import UserError


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_create_writes_the_complete_configuration(runs: Path) -> None:
    run = create("a", Config(seed=7))
    assert run.path == runs / "a" and run.config() == Config(seed=7) and names() == ["a"]
    assert find("a").path == find(str(runs / "a")).path == run.path


def test_create_taken_name_is_rejected_and_nothing_changes(runs: Path) -> None:
    create("a", Config(seed=1))
    before = {p: p.read_bytes() for p in runs.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"the run 'a' exists already .*--resume, or choose another --name"):
        create("a", Config(seed=2))
    assert {p: p.read_bytes() for p in runs.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "..", "a\n", "a" * 201])
def test_create_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot name a run|use at most 200"):
        create(name, Config())
    with pytest.raises(UserError, match="no run"):
        find(f"{name}nowhere")


@pytest.mark.parametrize(
    "number, advice",
    [(errno.ENOSPC, "the disk is full: free space"), (errno.EACCES, "permission denied"), (errno.EROFS, "read-only")],
)
def test_create_unusable_storage_is_explained_leaves_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    runs.mkdir()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=advice):
        create("a", Config())
    assert list(runs.iterdir()) == []


def test_create_file_in_place_of_the_root_is_explained(runs: Path) -> None:
    runs.write_text("")
    with pytest.raises(UserError, match="cannot create the run directory"):
        create("a", Config())


def test_find_unknown_run_lists_the_existing_ones() -> None:
    with pytest.raises(UserError, match="runs there: none"):
        find("a")
    create("b", Config())
    with pytest.raises(UserError, match=r"no run 'a' .*: b\)$"):
        find("a")


def test_free_name_counts_up() -> None:
    assert free_name("a") == "a"
    create("a", Config())
    assert free_name("a") == "a-2"
    create("a-2", Config())
    assert free_name("a") == "a-3"


@pytest.mark.parametrize("number", [errno.ENOTEMPTY, errno.EEXIST])
def test_create_name_taken_meanwhile(runs: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Another process takes the name just before the rename: a name that was asked for is rejected."""
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        if not target.exists() and "-" not in target.name:
            RunDirectory(target).path.mkdir()
            RunDirectory(target).write_config(Config(seed=3))
            raise OSError(number, os.strerror(number))
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(UserError, match="the run 'a' exists already"):
        create("a", Config(seed=1))
    assert create_free("b", Config(seed=1)).name == "b-2"
    assert [find(name).config().seed for name in names()] == [3, 3, 1]
    assert sorted(path.name for path in runs.iterdir()) == ["a", "b", "b-2"]


def test_exclusive_rejects_others_until_the_holder_is_killed() -> None:
    run = create("a", Config())
    code = (
        "import sys, time; from pathlib import Path; from cluster.runs.directory import *\n"
        f"with exclusive(RunDirectory(Path({str(run.path)!r}))): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="the run 'a' is in use by another process"), exclusive(run):
            pass
        with exclusive(run, "evaluation.lock"):
            pass
        other.kill()
        other.wait()
    with exclusive(run):
        pass


def test_discard_removes_only_runs_without_an_update() -> None:
    run = create("a", Config())
    (run.path / "checkpoints" / "e0001-v0000000.ckpt").write_bytes(b"")
    (run.path / "checkpoints" / "e0001-v0000001.ckpt").write_bytes(b"")
    discard(run)
    assert names() == ["a"]
    (run.path / "checkpoints" / "e0001-v0000001.ckpt").unlink()
    discard(run)
    assert names() == []


def test_discard_says_when_the_directory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def rmtree(path: Path, ignore_errors: bool) -> None:
        if not ignore_errors:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(directory.shutil, "rmtree", rmtree)
    monkeypatch.setattr(directory.time, "sleep", lambda seconds: None)
    with pytest.raises(PermissionError):
        discard(create("a", Config()))


def test_worker_target_is_saved_and_corruption_is_named() -> None:
    run = create("a", Config())
    assert run.worker_target() is None
    run.save_worker_target(12)
    assert directory.find("a").worker_target() == 12
    (run.path / "fleet.json").write_text("{}")
    with pytest.raises(UserError, match=r"fleet.json is corrupt .*: delete it and scale again"):
        run.worker_target()


def test_log_returns_the_last_lines() -> None:
    run = create("a", Config())
    assert run.log(10) == ""
    assert run.last_failure() is None
    run.save_failure("Traceback\nValueError: a bug")
    assert run.last_failure() == "Traceback\nValueError: a bug"
    run.save_failure(None)
    assert run.last_failure() is None
    (run.path / "failure.txt").write_bytes(b"ValueError: caf\xe9")
    assert run.last_failure() == "ValueError: caf\ufffd"
    handler = run.start_log()
    try:
        for k in range(5):
            logging.getLogger("test").warning("line %d", k)
    finally:
        handler.close()
    assert [line.split(": ")[-1] for line in run.log(2).splitlines()] == ["line 3", "line 4"]
