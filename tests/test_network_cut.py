"""A machine that the network cuts off from its cluster, on hosts of namespaces. Workers are stubs without JAX.

The quick version shortens the times after which Ray gives a silent machine up (SHORT); the slow one takes them as they
are: pytest -m slow tests/test_network_cut.py. Each ends with the oracle of `scene`.
"""

import json
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
from helpers.netns import HOME, REPOSITORY, Host, Room, command_lines, namespace, room, until

from cluster.runs.directory import RunDirectory
from learner.history import read_newest

pytestmark = pytest.mark.filterwarnings("ignore:os.fork")  # JAX warns; what is forked becomes another program at once

SHORT = {
    "RAY_health_check_period_ms": 1000,
    "RAY_health_check_timeout_ms": 3000,
    "RAY_health_check_failure_threshold": 5,  # given up after about 20 s, far from 5
    "RAY_grpc_client_keepalive_timeout_ms": 10_000,  # as long may what was sent remain unacknowledged
    "RAY_gcs_rpc_server_reconnect_timeout_s": 10,
}
START = "ray start --include-log-monitor=false --object-store-memory=80000000 "
HEAD = "--head --port=6379 --num-cpus=0 --include-dashboard=false"
NODE = "--address=head:6379 --num-cpus=4"
LAUNCH = """
import sys
from dataclasses import replace
from cluster import remote
from cluster.runs.open import Request, open_run
run, *_ = open_run(Request("{home}/run.toml", sys.argv[1], ("workers.count=4",), False))
config = run.config()
with remote.connected(run.name, replace(config, task=replace(config.task, family="stub:Stub"))):
    remote.launch(run, 4, spread=True, program="stub:Stub")
"""

MAKER = """
import hosts, pathlib, sys
with hosts.room(pathlib.Path(sys.argv[1]), "only") as room:
    print(room.switch.pid, room.hosts["only"].outer.pid, flush=True)
    input()
"""


@contextmanager
def cluster(folder: Path, settings: dict[str, int]) -> Iterator[Room]:
    """A head and two machines with four cores each."""
    with room(folder, "head", "worker-1", "worker-2") as made:
        variables = {"PATH": f"{sys.prefix}/bin:$PATH", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, **settings}
        lines = [f". {REPOSITORY}/deploy/ray/env.sh", *(f"export {name}={value}" for name, value in variables.items())]
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
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with cluster(tmp_path_factory.mktemp("quick"), SHORT) as made:
        yield made


class Run:
    """A run on the cluster, seen from outside: by its files and by what commands on the head say."""

    def __init__(self, head: Host, name: str):
        self.head, self.name = head, name
        self.directory = RunDirectory(head.home / "runs" / name)

    def status(self) -> dict[str, Any]:
        return json.loads(self.head.run(f"outertrain status {self.name} --json"))

    def last(self) -> tuple[int, int]:
        """The newest version, and how many workers had a sample in it; zeros before the first update."""
        newest = read_newest(self.directory.path, 1)
        return (newest[0].version, newest[0].workers_seen) if newest else (0, 0)

    def ended(self) -> int:
        """How many workers have ended unasked."""
        return self.directory.log(1000).count(" ended: ")

    def spread(self, machines: Room, *counts: int) -> bool:
        """Whether so many workers run on each machine, and no others anywhere."""
        hosts = list(machines.hosts.values())[1:]
        wanted = {host.address: count for host, count in zip(hosts, counts, strict=True) if count}
        status = self.status()
        return status["nodes"] == wanted and status["fleet"]["running"] == 4 == sum(counts)

    def advance(self, workers: int, seconds: float = 60) -> None:
        """Waits for more updates, and for one that all the workers had a part in."""
        goal = self.last()[0] + 3
        until(lambda: (at := self.last())[0] >= goal and at[1] == workers, seconds, "updates")


@contextmanager
def launched(machines: Room, name: str) -> Iterator[Run]:
    """A run of four stubs, two on each machine; at its end the oracle is asked."""
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
def test_hosts_are_cut_off_and_healed_and_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path)],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with maker:
        assert maker.stdout is not None
        inside = {namespace(int(pid), "net") for pid in maker.stdout.readline().split()}
        maker.kill()
    assert len(inside) == 2
    until(lambda: not any(namespace(pid, "net") in inside for pid, _ in command_lines()), 10, "the hosts to end")

    (tmp_path / "room").mkdir()
    with room(tmp_path / "room", "near", "far") as made:
        ask = "ssh -o ConnectTimeout=2 far hostname"
        assert made.hosts["near"].run(ask) == "far\n"
        made.cut("far")
        made.hosts["near"].run(f"! {ask}")
        made.heal("far")
        assert made.hosts["near"].run(f"until {ask}; do sleep 0.2; done") == "far\n"
        assert made.hosts["far"].processes() == []


@pytest.mark.cluster
@pytest.mark.faults
def test_a_cut_of_5_seconds_restarts_nothing(quick: Room) -> None:
    with launched(quick, "blink") as run:
        before = workers_on(quick.hosts["worker-1"])
        version = run.last()[0]
        quick.cut("worker-1")
        time.sleep(5)
        cut_off = run.last()[0]
        quick.heal("worker-1")
        assert cut_off > version
        run.advance(4)
        assert run.ended() == 0 and workers_on(quick.hosts["worker-1"]) == before and run.spread(quick, 2, 2)


@pytest.mark.cluster
@pytest.mark.faults
def test_the_workers_of_a_machine_that_stays_cut_off_are_replaced_and_leave_by_themselves(quick: Room) -> None:
    lost = quick.hosts["worker-1"]
    with launched(quick, "cut") as run:
        quick.cut("worker-1")
        seconds = give_up_and_replace(quick, run)
        seconds["left"] = until(lambda: not workers_on(lost), 120, "the workers that are cut off to leave")
        quick.heal("worker-1")
        seconds["empty"] = until(lambda: not lost.processes(), 120, "the machine that was cut off to be empty")
        print(seconds)
        lost.run(START + NODE)
        run.head.run("outertrain scale cut 6")
        until(lambda: run.status()["nodes"].get(lost.address), 60, "workers on the machine that is back")
        assert run.ended() == 2


@pytest.mark.slow
def test_a_cut_of_120_seconds_with_rays_own_times(tmp_path: Path) -> None:
    with cluster(tmp_path, {}) as machines, launched(machines, "long") as run:
        lost = machines.hosts["worker-1"]
        machines.cut("worker-1")
        end = time.monotonic() + 120
        seconds = give_up_and_replace(machines, run)
        time.sleep(max(0, end - time.monotonic()))
        machines.heal("worker-1")
        seconds["left"] = until(lambda: not workers_on(lost), 60, "the workers that were cut off to leave")
        seconds["empty"] = until(lambda: not lost.processes(), 120, "the machine that was cut off to be empty")
        print(seconds)
        assert run.ended() == 2


def give_up_and_replace(machines: Room, run: Run) -> dict[str, float]:
    """Seconds from a cut of worker-1 until Ray gives it up, and from then until its workers run elsewhere."""
    seconds = {"given up": until(lambda: run.ended() == 2, 110, "the machine to be given up")}
    seconds["restored"] = until(lambda: run.spread(machines, 0, 4), 60, "other workers")
    run.advance(4)
    return seconds
