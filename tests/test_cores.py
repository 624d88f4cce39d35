"""Cores of one process on a host that it shares: quota, mask, and locks that others may not see."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common import cores
from common.errors import UserError

MASK = sorted(os.sched_getaffinity(0))
PROGRAM = """
import json, os, threading
from common import cores
gate = threading.Event()
threading.Thread(target=gate.wait).start()  # a thread from before is restricted too
core = cores.pin_to_free_core()
print(json.dumps([core, [sorted(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")]]), flush=True)
input()
gate.set()
"""


@contextmanager
def started(count: int, *prefix: str, **environment: str) -> Iterator[list[tuple[int | None, list[list[int]]]]]:
    """So many processes at the same time, started one by one: the core and the affinities of the threads of each."""
    told, processes = [], []
    try:
        for k in range(count):
            command = [*prefix, sys.executable, "-c", PROGRAM]
            own = {**os.environ, **{name: value.format(k) for name, value in environment.items()}}
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own)
            processes.append(process)
            assert process.stdout
            told.append(json.loads(process.stdout.readline()))
        yield told
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(autouse=True)
def own_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of this test only: tests run on machines where workers run."""
    monkeypatch.setenv(cores.PIN_VARIABLE, "always")
    monkeypatch.setenv(cores.LOCKS_VARIABLE, f"test-{os.getpid()}")


def test_pin_processes_with_a_tmp_of_their_own_differ(tmp_path: Path) -> None:
    """Two users, two systemd services with PrivateTmp: they see neither the files nor the home of the other."""
    with started(len(MASK) + 1, TMPDIR=f"{tmp_path}/{{}}", HOME=f"{tmp_path}/home{{}}") as told:
        assert [core for core, _ in told] == [*MASK, None]
        for core, affinities in told:
            assert len(affinities) >= 2
            assert all(a == ([core] if core is not None else MASK) for a in affinities)


def test_pin_core_of_a_killed_process_is_free_again() -> None:
    for _ in range(2):
        with started(1) as told:
            assert told[0][0] == MASK[0]


def test_pin_outlasts_a_cleaner_of_temporary_folders(tmp_path: Path) -> None:
    with started(2, TMPDIR=str(tmp_path), OUTERTRAIN_CACHE=str(tmp_path / "cache")) as told:
        assert not list(tmp_path.iterdir())  # nothing that a cleaner could delete
        assert told[0][0] != told[1][0]


def test_pin_quota_below_the_mask_leaves_processes_unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cores.PIN_VARIABLE, "auto")
    monkeypatch.setattr(cores, "HOSTS_NETWORK", Path("/"))
    for limit, pinned in ((None, True), (len(MASK) - 0.5, False), (float(len(MASK)), True)):
        monkeypatch.setattr(cores, "quota", lambda limit=limit: limit)
        assert cores.may_pin() is pinned


def test_pin_locks_seen_in_a_container_only_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cores, "quota", lambda: None)
    monkeypatch.setattr(cores, "HOSTS_NETWORK", tmp_path / "absent")
    for mode, pinned in (("auto", False), ("", False), ("always", True), ("never", False)):
        monkeypatch.setenv(cores.PIN_VARIABLE, mode)
        assert cores.may_pin() is pinned
    monkeypatch.setenv(cores.PIN_VARIABLE, "yes")
    with pytest.raises(UserError, match="OUTERTRAIN_PIN = 'yes' is not a choice: use one of auto"):
        cores.may_pin()


def group(top: Path, path: str, **files: str) -> None:
    (top / path).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (top / path / name.replace("_", ".", 1)).write_text(text)


def test_quota_is_the_smallest_of_the_groups_above(tmp_path: Path) -> None:
    group(tmp_path, "a", cpu_max="150000 100000\n")
    group(tmp_path, "a/b", cpu_max="400000 100000\n")
    group(tmp_path, "a/c", cpu_max="max 100000\n")
    proc = tmp_path / "cgroup"
    for path, expected in (("/a/b", 1.5), ("/a/c", 1.5), ("/", None), ("/not/visible/here", None)):
        proc.write_text(f"1:name=systemd:/\n0::{path}\n")
        assert cores.quota(proc, tmp_path) == expected
    group(tmp_path, "", cpu_max="50000 100000\n")  # a container: its own group is the root
    assert cores.quota(proc, tmp_path) == 0.5
    assert cores.quota(tmp_path / "absent", tmp_path) is None


def test_quota_of_the_first_version_of_control_groups(tmp_path: Path) -> None:
    group(tmp_path, "cpu/a", cpu_cfs_quota_us="250000", cpu_cfs_period_us="100000")
    group(tmp_path, "cpu", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    proc = tmp_path / "cgroup"
    for path, expected in (("/a", 2.5), ("/", None)):
        proc.write_text(f"3:cpuset:/\n2:cpu,cpuacct:{path}\n0::/\n")
        assert cores.quota(proc, tmp_path) == expected


def test_count_is_bounded_by_mask_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    for limit, expected in ((None, 8), (4.0, 4), (1.5, 1), (0.2, 1), (64.0, 8)):
        monkeypatch.setattr(cores, "quota", lambda limit=limit: limit)
        assert cores.count() == expected
