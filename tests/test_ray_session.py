"""What travels to the nodes of a cluster, and what is left of commands that were killed."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.actors import ray_session
from common.config import Config, TaskConfig
from common.errors import UserError


def config(family: str) -> Config:
    return replace(Config(), task=TaskConfig(family=family))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    for name in (
        "mine.py",
        "package/__init__.py",
        "package/part.py",
        "package/__pycache__/x.pyc",
        "data.bin",
        "loose/x.py",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("")
    monkeypatch.chdir(here)
    return tmp_path


def staged(family: str, folder: Path) -> set[str]:
    top = ray_session.stage(config(family), folder)
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}


@pytest.mark.parametrize("family", ["mine:tasks", "package.part:tasks"])
def test_stage_copies_the_users_modules_into_a_subfolder(folder: Path, family: str) -> None:
    assert staged(family, folder) == {"user/mine.py", "user/package/__init__.py", "user/package/part.py"}


@pytest.mark.parametrize("family", ["conv", "installed_module:tasks"])
def test_stage_copies_nothing_for_other_families(folder: Path, family: str) -> None:
    assert staged(family, folder) == set()


def test_sweep_removes_only_folders_of_dead_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session.tempfile, "gettempdir", lambda: str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, living, other = (tmp_path / f"outertrain-ray-{name}-x" for name in (ended.pid, os.getpid(), "word"))
    for made in (dead, living, other):
        made.mkdir()
    ray_session.sweep()
    assert not dead.exists() and living.exists() and other.exists()


def test_apply_settings_keeps_the_users_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"RAY_DEDUP_LOGS": "1"})
    ray_session.apply_settings()
    assert os.environ == {**ray_session.SETTINGS, "RAY_DEDUP_LOGS": "1"}


def test_has_token_looks_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not ray_session.has_token()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    assert ray_session.has_token()


@pytest.fixture
def unstarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, and an environment that is restored; Ray is not started."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", *ray_session.SETTINGS):
        monkeypatch.setenv(name, os.environ.get(name, ray_session.SETTINGS.get(name, "")))
    monkeypatch.setattr(ray_session.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_local_ray_that_does_not_start_is_a_user_error(unstarted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen.")

    monkeypatch.setattr("ray.init", init)
    with (
        pytest.raises(UserError, match=r"did not start .*timed out during startup\).*--in-process"),
        ray_session.local(2, "x", Config()),
    ):
        pass
    assert list(unstarted.iterdir()) == []


def test_local_output_of_ray_goes_to_standard_error(
    unstarted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.init", lambda **options: None)
    with ray_session.local(2, "x", Config()):
        print("(raylet) a worker died")
    print("{}")
    told = capsys.readouterr()
    assert told.out == "{}\n" and "a worker died" in told.err
