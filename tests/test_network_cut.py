"""A host that is disconnected from its cluster, on virtual hosts. Workers are stubs without JAX.

The quick tests shorten Ray's timeouts for silent nodes (SHORT); the slow one uses its defaults:
pytest -m slow tests/test_network_cut.py. Each run ends with the checks of `helpers.cluster`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import cluster as scene
from helpers.netns import HOME, REPOSITORY, Host, Network, command_lines, namespace, until, virtual_network

from cluster.runs.directory import RunDirectory
from learner.history import read_newest

pytestmark = pytest.mark.filterwarnings("ignore:os.fork")  # JAX warns; what is forked becomes another program at once

SHORT = {
    "RAY_health_check_period_ms": 1000,
    "RAY_health_check_timeout_ms": 3000,
    "RAY_health_check_failure_threshold": 5,  # declared dead after about 20 s, far from 5
    "RAY_grpc_client_keepalive_timeout_ms": 10_000,  # limit for unacknowledged messages
    "RAY_gcs_rpc_server_reconnect_timeout_s": 10,
}
START = "ray start --include-log-monitor=false --object-store-memory=80000000 "
HEAD = "--head --port=6379 --num-cpus=0 --include-dashboard=false"
NODE = "--address=head:6379 --num-cpus=4"
LAUNCH = """
import sys
from dataclasses import replace
from cluster.launchers import ray_cluster
from cluster.runs.open import Request, open_run
run, *_ = open_run(Request("{home}/run.toml", sys.argv[1], ("workers.count=4",), False))
config = run.config()
with ray_cluster.connected(run.name, replace(config, task=replace(config.task, family="stub:Stub"))):
    ray_cluster.launch(run, 4, spread=True, program="stub:Stub")
"""

CREATOR = """
import pathlib, sys
from helpers import netns
with netns.virtual_network(pathlib.Path(sys.argv[1]), "only") as network:
    print(network.switch.pid, network.hosts["only"].outer.pid, flush=True)
    input()
"""


@contextmanager
def ray_on_hosts(folder: Path, settings: dict[str, int]) -> Iterator[Network]:
    """A head and two nodes with four cores each."""
    with virtual_network(folder, "head", "worker-1", "worker-2") as made:
        variables = {"PATH": f"{sys.prefix}/bin:$PATH", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, **settings}
        name = "JAX_DISABLE_MOST_OPTIMIZATIONS"  # as in this process, whose replay must agree bit for bit
        compiled = {name: os.environ[name]}
        exports = (f"export {name}={value}" for name, value in {**variables, **compiled}.items())
        lines = [f". {REPOSITORY}/deploy/ray/env.sh", *exports]
        head, *workers = made.hosts.values()
        for host in made.hosts.values():
            (host.home / ".bashrc").write_text("\n".join(lines) + "\n")
        (head.home / "run.toml").write_text(scene.CONFIG)
        (head.home / "launch.py").write_text(LAUNCH.format(home=HOME))
        head.run(START + HEAD)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda host: host.run(START + NODE), workers))
        yield made


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with ray_on_hosts(tmp_path_factory.mktemp("quick"), SHORT) as made:
        yield made


class Run:
    """A run on the cluster, seen from outside: by its files, and by commands on the head node."""

    def __init__(self, head: Host, name: str):
        self.head, self.name = head, name
        self.directory = RunDirectory(head.home / "runs" / name)

    def status(self) -> dict[str, Any]:
        return json.loads(self.head.run(f"outertrain status {self.name} --json"))

    def last(self) -> tuple[int, int]:
        """The newest version and the number of workers with a sample in it; zeros before the first update."""
        newest = read_newest(self.directory.path, 1)
        return (newest[0].version, newest[0].workers_seen) if newest else (0, 0)

    def ended(self) -> int:
        """Number of workers that exited unexpectedly."""
        return self.directory.log(1000).count(" exited: ")

    def spread(self, machines: Network, *counts: int) -> bool:
        """Whether exactly so many workers run on each node."""
        hosts = list(machines.hosts.values())[1:]
        wanted = {host.address: count for host, count in zip(hosts, counts, strict=True) if count}
        status = self.status()
        return status["nodes"] == wanted and status["fleet"]["running"] == 4 == sum(counts)

    def advance(self, workers: int, seconds: float = 60) -> None:
        """Waits for three updates, and for one with samples of all workers."""
        goal = self.last()[0] + 3
        until(lambda: (at := self.last())[0] >= goal and at[1] == workers, seconds, "updates")


@contextmanager
def launched(machines: Network, name: str) -> Iterator[Run]:
    """A run of four stubs, two on each node; at its end it is checked."""
    head = machines.hosts["head"]
    head.run(f"cd {scene.STUB}; python {HOME}/launch.py {name}")
    run = Run(head, name)
    until(lambda: run.spread(machines, 2, 2), 120, "four workers")
    run.advance(4)
    yield run
    head.run(f"outertrain stop {name}")
    scene.check_run(run.directory)
    scene.check_nothing_is_missing(run.directory)


def workers_on(host: Host) -> list[str]:
    return [line for line in host.processes() if line.startswith("ray::WorkerActor")]


@pytest.mark.cluster
@pytest.mark.faults
def test_netns_hosts_disconnect_reconnect_and_end(tmp_path: Path) -> None:
    creator = subprocess.Popen(
        [sys.executable, "-c", CREATOR, str(tmp_path)],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with creator:
        assert creator.stdout is not None
        inside = {namespace(int(pid), "net") for pid in creator.stdout.readline().split()}
        creator.kill()
    assert len(inside) == 2
    until(lambda: not any(namespace(pid, "net") in inside for pid, _ in command_lines()), 10, "the hosts to end")

    (tmp_path / "hosts").mkdir()
    with virtual_network(tmp_path / "hosts", "near", "far") as made:
        ask = "ssh -o ConnectTimeout=2 far hostname"
        assert made.hosts["near"].run(ask) == "far\n"
        made.disconnect("far")
        made.hosts["near"].run(f"! {ask}")
        made.reconnect("far")
        assert made.hosts["near"].run(f"until {ask}; do sleep 0.2; done") == "far\n"
        assert made.hosts["far"].processes() == []


@pytest.mark.cluster
@pytest.mark.faults
def test_network_cut_of_5_seconds_restarts_nothing(quick: Network) -> None:
    with launched(quick, "blink") as run:
        before = workers_on(quick.hosts["worker-1"])
        version = run.last()[0]
        quick.disconnect("worker-1")
        time.sleep(5)
        reached = run.last()[0]
        quick.reconnect("worker-1")
        assert reached > version
        run.advance(4)
        assert run.ended() == 0 and workers_on(quick.hosts["worker-1"]) == before and run.spread(quick, 2, 2)


@pytest.mark.cluster
@pytest.mark.faults
def test_network_cut_for_good_workers_are_replaced(quick: Network) -> None:
    lost = quick.hosts["worker-1"]
    with launched(quick, "cut") as run:
        quick.disconnect("worker-1")
        seconds = await_replacement(quick, run)
        seconds["shut down"] = until(lambda: not workers_on(lost), 120, "the disconnected workers to shut down")
        quick.reconnect("worker-1")
        seconds["empty"] = until(lambda: not lost.processes(), 120, "the disconnected host to have no processes")
        print(seconds)
        lost.run(START + NODE)
        run.head.run("outertrain scale cut 6")
        until(lambda: run.status()["nodes"].get(lost.address), 60, "workers on the reconnected host")
        assert run.ended() == 2


@pytest.mark.slow
def test_network_cut_of_120_seconds_with_rays_timeouts(tmp_path: Path) -> None:
    with ray_on_hosts(tmp_path, {}) as machines, launched(machines, "long") as run:
        lost = machines.hosts["worker-1"]
        machines.disconnect("worker-1")
        end = time.monotonic() + 120
        seconds = await_replacement(machines, run)
        time.sleep(max(0, end - time.monotonic()))
        machines.reconnect("worker-1")
        seconds["shut down"] = until(lambda: not workers_on(lost), 60, "the disconnected workers to shut down")
        seconds["empty"] = until(lambda: not lost.processes(), 120, "the disconnected host to have no processes")
        print(seconds)
        assert run.ended() == 2


def await_replacement(machines: Network, run: Run) -> dict[str, float]:
    """Seconds until Ray declares the disconnected worker-1 dead, and from then until its workers run elsewhere."""
    seconds = {"declared dead": until(lambda: run.ended() == 2, 110, "the node to be declared dead")}
    seconds["restored"] = until(lambda: run.spread(machines, 0, 4), 60, "other workers")
    run.advance(4)
    return seconds
