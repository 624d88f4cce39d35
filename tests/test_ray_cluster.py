"""The connection of a command to a cluster, without one: jobs, signals, and what Ray raises."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.ray_environment import ray

from cluster.cli.main import main
from cluster.launchers import ray_cluster
from cluster.monitoring import targets
from cluster.runs import directory
from cluster.runs.open import Opened
from common.config import Config
from common.errors import UserError
from learner.status import LearnerStatus

EXCEPTIONS = ray.exceptions


@pytest.fixture(autouse=True)
def connecting(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each `ray.init`, with the folder in which it was called; SIGTERM is set as by Ray."""
    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        calls.append(options | {"cwd": Path.cwd()})

    monkeypatch.setenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", "0")
    monkeypatch.setattr(ray_cluster, "find_head", lambda: "127.0.0.1:1")
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray.util, "list_named_actors", lambda all_namespaces: [])
    return calls


def test_connected_in_a_job_replaces_its_working_directory(connecting: list[dict[str, Any]]) -> None:
    with ray_cluster.connected("a", Config()):
        assert os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] == "1"
    assert connecting[0]["runtime_env"] == {"working_dir": str(connecting[0]["cwd"])}
    assert connecting[0]["namespace"] == "outertrain/a"


def test_connected_hides_the_users_packages_from_tasks(connecting: list[dict[str, Any]], tmp_path: Path) -> None:
    """Ray puts the folder of `ray.init` first on the import path of tasks: one with a package `common` would replace ours."""
    with ray_cluster.connected():
        pass
    assert connecting[0]["cwd"] != Path.cwd() and not connecting[0]["cwd"].exists()


def test_connected_sigterm_undoes_what_was_begun() -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt), ray_cluster.connected():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_connected_keeps_a_handler_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with ray_cluster.connected():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


@pytest.mark.parametrize(
    "error, said",
    [
        (EXCEPTIONS.RuntimeEnvSetupError("no space"), "Ray reports: .*no space.*could not be copied to a node"),
        (EXCEPTIONS.ActorUnschedulableError("no CPU"), "no CPU.*ray status"),
        (EXCEPTIONS.RpcError("connection lost"), "connection lost.*is the head of the cluster running"),
        (EXCEPTIONS.GetTimeoutError("late"), r"Ray reports: late \(GetTimeoutError\)"),
        (EXCEPTIONS.ObjectLostError("ab" * 28, None, ""), "Ray reports: "),
    ],
)
def test_connected_what_ray_raises_is_a_user_error(error: Exception, said: str) -> None:
    with pytest.raises(UserError, match=said), ray_cluster.connected():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Version mismatch: the cluster was started with Ray 2.50. Python 3.11"),
        ValueError("Failed to merge"),
        ConnectionError("Failed to connect"),
        EXCEPTIONS.AuthenticationError("wrong token"),
    ],
)
def test_connected_to_a_cluster_that_rejects_is_a_user_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    first = str(error).partition(". ")[0].splitlines()[0][:20]
    with pytest.raises(UserError, match=f"does not connect to the cluster at 127.0.0.1:1: .*{first}"):
        ray_cluster.connected("a").__enter__()


@pytest.mark.parametrize("error", [KeyboardInterrupt, EXCEPTIONS.ActorDiedError])
def test_launch_that_fails_frees_the_name(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*arguments: Any, **options: Any) -> None:
        assert (tmp_path / "runs" / "a").exists()
        raise error

    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(ray_cluster, "launch", launch)
    assert main(["launch", "--name", "a"]) == (130 if error is KeyboardInterrupt else 2)
    assert not (tmp_path / "runs" / "a").exists()


def test_launch_resumes_only_what_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service gives its CONFIG too, and then starts what does not exist yet."""
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(ray_cluster, "launch", lambda *arguments, **options: None)
    assert main(["launch", "--name", "a", "--resume"]) == 2
    assert "no run 'a'" in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert main(["launch", "quickstart", "--name", "a", "--resume", "--set", "evaluation.every=5"]) == 0
    assert "evaluation.every has no effect on a launched run" in capsys.readouterr().err


def test_launch_of_a_run_that_is_there_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its learner reads the configuration when it restarts, and makes updates meanwhile."""
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(ray_cluster, "launch", lambda *arguments, **options: None)
    assert main(["launch", "--name", "a"]) == 0
    before = (tmp_path / "runs" / "a" / "config.toml").read_bytes()
    monkeypatch.setattr(ray_cluster, "runs", lambda: ["a"])
    monkeypatch.setattr(Opened, "apply", lambda opened: pytest.fail("its configuration is written"))
    assert main(["launch", "--name", "a", "--resume", "--set", "outer.updates=9"]) == 2
    assert (tmp_path / "runs" / "a" / "config.toml").read_bytes() == before


def test_launch_in_the_folder_of_a_job_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("OUTERTRAIN_RUNS", raising=False)
    assert main(["launch", "--name", "a"]) == 2
    assert "deletes when this job ends: set OUTERTRAIN_RUNS" in capsys.readouterr().err and not list(folder.iterdir())


class Method:
    """A method of an actor handle: its `remote` returns what `unwrap` then takes."""

    def __init__(self, call: Any):
        self.remote = call


def stopped(
    monkeypatch: pytest.MonkeyPatch, durable: int, fleet_error: Exception | None = None, **options: Any
) -> list:
    """What `stop` did to a run at version 7, whose version `durable` is on disk."""
    done: list[Any] = []

    def drain() -> None:
        if fleet_error is not None:
            raise fleet_error

    status = LearnerStatus(version=7, durable_version=durable, checkpoint_error="No space left on device")
    learner = SimpleNamespace(
        drain=Method(lambda: None), persist=Method(lambda: status), close=Method(lambda: done.append("close"))
    )
    empty = SimpleNamespace(grace=0.0, alive=0)
    fleet = SimpleNamespace(
        drain=Method(drain), status=Method(lambda: empty), close=Method(lambda: done.append("withdraw"))
    )
    monkeypatch.setattr(ray_cluster, "handles", lambda run: ray_cluster.Handles(learner, fleet))
    monkeypatch.setattr(ray_cluster, "unwrap", lambda call: call())
    monkeypatch.setattr(ray_cluster, "running", lambda run: False)
    monkeypatch.setattr(ray, "kill", lambda actor: done.append(actor))
    try:
        ray_cluster.stop("a", print, **options)
    except UserError as error:
        done.append(str(error))
    return ["kill" if isinstance(one, SimpleNamespace) else one for one in done]


def test_stop_keeps_a_learner_whose_version_is_not_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    [sentence] = stopped(monkeypatch, durable=5)
    assert "version 7 of 'a' is in memory only, version 5 is on disk (No space left on device)" in sentence
    assert stopped(monkeypatch, durable=5, now=True) == ["close", "withdraw", "kill", "kill"]
    assert stopped(monkeypatch, durable=7) == ["close", "withdraw", "kill", "kill"]


def test_stop_closes_the_learner_of_a_failed_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    unavailable = EXCEPTIONS.ActorUnavailableError("restarting", b"0" * 16)
    assert stopped(monkeypatch, durable=7, fleet_error=unavailable) == ["close", "withdraw", "kill", "kill"]


def test_launch_that_fails_leaves_no_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTERTRAIN_RUNS", str(tmp_path))
    run, killed = directory.create("a", Config()), list[str]()

    def start(*arguments: Any, **options: Any) -> SimpleNamespace:
        targets.write_targets(run, targets.LEARNER, "127.0.0.1", 1)
        return SimpleNamespace(ready=Method(None), status=Method(None))

    def interrupt(call: Any, process: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.actors.learner_actor.start_learner", start)
    monkeypatch.setattr(ray_cluster, "await_ready", interrupt)
    monkeypatch.setattr(ray_cluster, "running", lambda name: False)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "ab" * 28))
    monkeypatch.setattr(ray, "kill", lambda actor: killed.append("learner"))
    with pytest.raises(KeyboardInterrupt):
        ray_cluster.launch(run, 2, spread=True)
    assert killed == ["learner"] and not run.target_file(targets.LEARNER).exists()
