"""The one atomic writer: old content or new, never a part."""

import os
from pathlib import Path

import pytest

from common import files

STEPS = ("before_write", "after_write", "before_fsync", "after_fsync", "before_rename", "after_rename")


def test_replace_writes_text_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert files.replace(path, "ü") == 2 and path.read_bytes() == "ü".encode()
    assert files.replace(path, b"xyz") == 3 and path.read_bytes() == b"xyz"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("step", STEPS)
def test_replace_interrupted_keeps_one_complete_content(tmp_path: Path, step: str) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail(reached: str) -> None:
        if reached == step:
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        files.replace(path, "new", fail)
    assert path.read_text() == ("new" if step == "after_rename" else "old")
    assert os.listdir(tmp_path) == ["a"]


def test_replace_by_two_processes_of_one_id_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers, whose processes all have the id 1, write to one shared folder."""
    monkeypatch.setattr(os, "getpid", lambda: 1)

    def other_writes(step: str) -> None:
        if step == "before_rename":
            files.replace(tmp_path / "a", "second")

    files.replace(tmp_path / "a", "first", other_writes)
    assert (tmp_path / "a").read_text() == "first" and os.listdir(tmp_path) == ["a"]


def test_replace_reports_every_step_in_order(tmp_path: Path) -> None:
    seen: list[str] = []
    files.replace(tmp_path / "a", "x", seen.append)
    assert tuple(seen) == STEPS
