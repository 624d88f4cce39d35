"""Faults of processes and nodes on a Ray cluster. Workers are stubs without JAX."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.cluster import (
    Scene,
    add_node,
    alive,
    check_nothing_is_missing,
    check_run,
    launched,
    start_cluster,
    surrounded,
    until,
)
from helpers.ray_environment import Cluster, ray

from cluster.actors.ray_errors import unwrap
from cluster.actors.ray_pool import RayPool
from cluster.cli.main import main
from cluster.jobs import job
from cluster.launchers import ray_cluster
from cluster.runs import directory
from cluster.runs.directory import RunDirectory
from common.errors import UserError
from learner.checkpoints import latest_checkpoint
from learner.history import read_history
from learner.journal import replay

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:os.fork"),  # JAX warns; what is forked here becomes another program at once
]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with surrounded(tmp_path_factory.mktemp("cluster")) as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster(surroundings: Path) -> Iterator[Cluster]:
    cluster = start_cluster(2)
    yield cluster
    cluster.shutdown()


def test_cluster_killed_workers_are_replaced(surroundings: Path, cluster: Cluster) -> None:
    with launched(surroundings, "killed", 8) as scene:
        replaced = []
        for k in range(20):
            present = sorted(scene.workers().items())
            uid, pid = present[k % len(present)]
            os.kill(pid, signal.SIGKILL)
            until(lambda uid=uid: uid not in scene.workers(), 15)
            if k % 4 == 3:
                replaced.append(scene.reach(8, 60))
        assert max(replaced) < 30
        print({"seconds_until_four_killed_workers_are_replaced": replaced})
        scene.advance()
        assert scene.fleet().restarts == 20 and scene.learner().epoch == 1
        assert outertrain("logs", "killed", "--lines", "10000").count(" exited: ") == 20
    check_nothing_is_missing(scene.run)


def test_cluster_killed_learner_restarts_and_workers_continue(surroundings: Path, cluster: Cluster) -> None:
    with launched(surroundings, "restarted", 4) as scene:
        before, away = scene.workers(), []
        for epoch in (2, 3):
            scene.advance()
            version = scene.learner().version
            os.kill(unwrap(scene.handles.learner.pid.remote), signal.SIGKILL)
            away.append(until(lambda epoch=epoch: scene.learner().epoch == epoch, 30))
            parent = json.loads((scene.run.epochs / f"e{epoch:04d}.json").read_text())["parent"]
            assert parent[1] >= version - 1
            scene.advance()
        assert scene.workers() == before
        print({"seconds_until_the_killed_learner_is_back": away})
    assert {line.epoch for line in read_history(scene.run.path)} == {1, 2, 3}


def test_cluster_waits_for_an_unavailable_run_directory(surroundings: Path, cluster: Cluster) -> None:
    """The storage is unavailable just when the learner restarts."""
    with launched(surroundings, "away", 4) as scene:
        scene.advance()
        before, version = scene.workers(), scene.learner().version
        away = scene.run.path.rename(scene.run.path.with_name(".away"))
        os.kill(unwrap(scene.handles.learner.pid.remote), signal.SIGKILL)
        until(lambda: "cannot read the configuration" in str(error_of(scene)), 30)
        time.sleep(3)
        away.rename(scene.run.path)
        back = until(lambda: error_of(scene) is None, 60)
        scene.advance()
        print({"seconds_until_a_learner_opens_its_run_again": back})
        assert scene.learner().version > version and scene.learner().epoch == 2
        assert scene.workers() == before

        fleet = unwrap(scene.handles.fleet.pid.remote)
        away = scene.run.path.rename(scene.run.path.with_name(".away"))
        os.kill(fleet, signal.SIGKILL)
        time.sleep(5)
        away.rename(scene.run.path)
        scene.reach(4, 60)


def error_of(scene: Scene) -> UserError | None:
    try:
        scene.learner()
    except UserError as error:
        return error
    return None


def test_stop_after_an_interrupted_launch(surroundings: Path, cluster: Cluster) -> None:
    with launched(surroundings, "half", 2) as scene:
        scene.advance()
        ray.kill(scene.handles.fleet)
        until(lambda: ray_cluster.handles("half").fleet is None, 30)
        with pytest.raises(UserError, match="has no fleet because its launch was interrupted: stop it"):
            ray_cluster.scale("half", 3)


def test_launch_that_fails_after_a_checkpoint_leaves_nothing(
    surroundings: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["launch", str(surroundings / "run.toml"), "--name", "fails", "--workers", "1"]
    run, ready = RunDirectory(directory.root() / "fails"), ray_cluster.await_ready

    def fail(call: Any, process: str) -> None:
        ready(call, process)
        if process == "fleet":
            assert latest_checkpoint(run.path) is not None
            raise UserError("the fleet cannot start: no reason")

    with monkeypatch.context() as patch:
        patch.setattr(ray_cluster, "await_ready", fail)
        assert main(arguments) == 2
    assert "the fleet cannot start: no reason" in capsys.readouterr().err
    assert not run.path.exists() and not list(directory.root().glob(".*fails*"))
    with ray_cluster.connected():
        assert not ray_cluster.running("fails")
    assert main(arguments) == 0 and main(["stop", "fails", "--now"]) == 0


def test_cluster_frozen_worker_and_frozen_learner_lose_nothing(surroundings: Path, cluster: Cluster) -> None:
    with launched(surroundings, "frozen", 3) as scene:
        before = scene.workers()
        victim = next(iter(before.values()))
        os.kill(victim, signal.SIGSTOP)
        thawed = time.monotonic() + 60
        while time.monotonic() < thawed:
            scene.advance(10, seconds=10)
        os.kill(victim, signal.SIGCONT)
        learner = unwrap(scene.handles.learner.pid.remote)
        os.kill(learner, signal.SIGSTOP)
        time.sleep(5)
        os.kill(learner, signal.SIGCONT)
        scene.advance(10)
        assert scene.workers() == before and scene.learner().epoch == 1
        assert scene.learner().workers_known == 3
    check_nothing_is_missing(scene.run)


def test_cluster_killed_fleet_restarts_with_its_target(surroundings: Path, cluster: Cluster) -> None:
    with launched(surroundings, "fleetless", 4) as scene:
        ray_cluster.scale("fleetless", 3)
        scene.reach(3)
        before = scene.workers()
        os.kill(unwrap(scene.handles.fleet.pid.remote), signal.SIGKILL)
        reaped = until(lambda: not any(alive(pid) for pid in before.values()), 30)
        print({"seconds_until_reaped": reaped, "seconds_until_restored": scene.reach(3)})
        assert not set(scene.workers()) & set(before)
        scene.advance()
        assert scene.learner().epoch == 1


def test_cluster_workers_of_a_lost_node_start_elsewhere(surroundings: Path, cluster: Cluster) -> None:
    lost = add_node(cluster)
    with launched(surroundings, "moved", 6) as scene:
        before, nodes = scene.workers(), living_nodes()
        cluster.remove_node(lost, allow_graceful=False)
        noticed = until(lambda: len(set(before) - set(scene.workers())) >= 1, 60)
        restored = scene.reach(6, 60 - noticed)
        print({"seconds_until_a_lost_node_is_noticed": noticed, "seconds_until_restored": restored})
        scene.advance()
        assert scene.learner().epoch == 1
        # Until Ray knows, it may send workers there, those of the next test too.
        until(lambda: living_nodes() == nodes - 1, 60)


def living_nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def outertrain(*arguments: str, code: int = 0) -> str:
    """Runs a command in a process and returns its standard output."""
    script = str(Path(sys.executable).parent / "outertrain")
    done = subprocess.run([script, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_cluster_two_runs_one_scaled_by_command(surroundings: Path, cluster: Cluster) -> None:
    """The other run has real workers. Neither affects the other."""
    outertrain("launch", str(surroundings / "run.toml"), "--name", "steady", "--workers", "1")
    with launched(surroundings, "scaled", 8) as scene:
        steady = Scene("steady")
        for count in (0, 8, 4):
            pids = scene.workers().values()
            outertrain("scale", "scaled", str(count))
            print({"scaled_to": count, "seconds": scene.reach(count, 60)})
            if count == 0:
                until(lambda pids=pids: not any(alive(pid) for pid in pids), 10)
                idle = load(unwrap(scene.handles.learner.pid.remote), 5.0)
                print({"core_of_an_idle_learner": idle})
                assert idle < 0.02
        scene.advance()
        state = json.loads(outertrain("status", "scaled", "--json"))
        assert state["state"] == "running" and state["workers"] == 4 and state["epoch"] == 1
        assert sorted(ray_cluster.runs()) == ["scaled", "steady"]
        steady.advance(seconds=60)
        assert steady.fleet().restarts == 0 and steady.fleet().target == 1
        assert outertrain("scale", "nothing", "3", code=2) == ""
    outertrain("stop", "steady")
    check_run(steady.run)
    assert not list(steady.run.path.glob("metrics-*.json"))
    assert directory.find("scaled").worker_target() == 4


def load(pid: int, seconds: float) -> float:
    """The fraction of a core that a process uses."""
    return psutil.Process(pid).cpu_percent(seconds) / 100


def test_cluster_job_survives_the_loss_of_workers(surroundings: Path, cluster: Cluster) -> None:
    with launched(surroundings, "busy", 4) as scene:
        results = job.Results(scene.run.evaluation / "job.jsonl")
        jobs = [job.Job.from_json({"item": f"i{k}"}) for k in range(40)]
        killed = []

        def progress(done: int, total: int) -> None:
            if done >= 10 * (len(killed) + 1) and len(killed) < 2:
                uid, pid = sorted(scene.workers().items())[0]
                os.kill(pid, signal.SIGKILL)
                killed.append(uid)

        job.run(jobs, results, RayPool(scene.handles.fleet), progress)
        assert len(killed) == 2
        lines = [json.loads(line)["item"] for line in results.path.read_text().splitlines()]
        assert sorted(lines) == sorted(one.name for one in jobs)
        scene.advance()


def test_cluster_aggregators_merge_and_one_may_be_lost(surroundings: Path, cluster: Cluster) -> None:
    with launched(surroundings, "merged", 8, "workers.aggregate=4") as scene:
        scene.advance()
        assert scene.fleet().restarts == 0
        node = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
        before, known = scene.workers(), scene.learner().workers_known
        ray.kill(unwrap(scene.handles.fleet.aggregator.remote, node), no_restart=False)
        until(lambda: scene.learner().workers_known == known + 1, 60)  # a restarted aggregator has another uid
        scene.advance()
        assert scene.workers() == before
    assert {name[:2] for name, _ in replay(scene.run.path).names} == {"a-"}


class Deserted(Exception):
    """Leaves a run as it is, and the connection to its cluster."""


def test_cluster_head_lost_run_resumes_on_a_new_cluster(surroundings: Path) -> None:
    first = start_cluster(1)
    with pytest.raises(Deserted), launched(surroundings, "beheaded", 2) as scene:
        scene.advance()
        raise Deserted  # a driver ends at once when its head does, and would take the tests along
    for node in (first.head_node, *first.worker_nodes):
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    version = read_history(scene.run.path)[-1].version
    second = start_cluster(1)
    with launched(surroundings, "beheaded", 2) as scene:
        assert scene.learner().epoch == 2 and scene.learner().version >= version - 1
        scene.advance()
    second.shutdown()
