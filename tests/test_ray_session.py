"""Ray on this machine: where its files are, what is left of commands that were killed, and how it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.actors import ray_head, ray_session
from common.config import Config
from common.errors import UserError


def test_sweep_removes_only_folders_of_dead_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in another container, whose process id means nothing here, holds its lock."""
    monkeypatch.setattr(ray_session, "scratch_parents", lambda: [tmp_path])
    living, lock = ray_session.make_scratch()
    dead, new, other = (tmp_path / name for name in ("outertrain-ray-dead", "outertrain-ray-new", "word"))
    for made in (dead, new, other):
        made.mkdir()
    monkeypatch.setattr(ray_session.time, "time", lambda: new.stat().st_ctime + 100)
    ray_session.sweep()
    assert not dead.exists() and not new.exists() and living.exists() and other.exists()
    new.mkdir()
    monkeypatch.setattr(ray_session.time, "time", lambda: new.stat().st_ctime + 1)
    ray_session.sweep()
    assert new.exists()  # it may not be locked yet
    os.close(lock)


def test_make_scratch_in_a_long_tmpdir_takes_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / "scratch" / "job.12345"
    long.mkdir(parents=True)
    monkeypatch.setattr(ray_session.tempfile, "tempdir", str(long))
    folder, lock = ray_session.make_scratch()
    session = folder / "session_2026-11-27_07-44-43_123456_4194304" / "sockets" / "plasma_store"
    assert len(str(session)) <= 107 and folder.parent != long
    folder.rmdir()
    os.close(lock)
    monkeypatch.setattr(ray_session, "scratch_parents", list)
    with pytest.raises(UserError, match="TMPDIR to a short path"):
        ray_session.make_scratch()


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
    monkeypatch.setattr(ray_session, "scratch_parents", lambda: [tmp_path])
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {"working_dir": "gcs://pkg.zip"}}'),
        ("RAY_REDIS_ADDRESS", "redis:6379"),
        ("RAY_USE_TLS", "1"),
    ],
)
def test_local_inside_a_cluster_is_independent_of_it(
    unstarted: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("ray.init", lambda **options: None)
    with ray_session.local(2, "x", Config()):
        assert name not in os.environ


PROCESSES = """
from contextlib import suppress
import psutil
from cluster.actors import ray_session
from common.config import Config
with ray_session.local(2, "x", Config()):
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            print(" ".join(process.cmdline()))
"""


@pytest.mark.cluster
def test_local_starts_no_dashboard_and_no_monitor() -> None:
    """In a process of its own: Ray keeps the token of the first cluster that a process has used."""
    done = subprocess.run([sys.executable, "-c", PROCESSES], capture_output=True, text=True, timeout=120)
    commands = done.stderr.splitlines()  # where `local` sends what is printed
    assert done.returncode == 0, done.stderr
    assert any("raylet" in command for command in commands)
    assert any("gcs_server" in command for command in commands)
    assert not [command for command in commands if "monitor.py" in command or "dashboard.py" in command]


def test_reduced_ray_is_restored_and_may_lack_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.node import Node

    before = {name: getattr(Node, name) for name in ray_head.NOT_STARTED}
    monkeypatch.setattr(ray_head, "NOT_STARTED", (*ray_head.NOT_STARTED, "start_of_another_version"))
    with ray_head.reduced():
        assert not {name for name in before if getattr(Node, name) is before[name]}
    assert {name: getattr(Node, name) for name in before} == before and not hasattr(Node, "start_of_another_version")
