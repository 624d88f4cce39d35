"""A cluster of machines in a room, from `ray up` to `ray down`, as deploy/README.md has it, on hosts of namespaces.

What differs from a user's room: the hosts find the pinned dependencies installed, because nothing is downloaded there,
and the user is root.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import REPOSITORY, Host, Room, command_lines, namespace, room, until

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore:os.fork")]

COPIED = ("common", "learner", "workers", "cluster", "deploy", "docs", "pyproject.toml", "README.md", "LICENSE")
HOSTS = ("head", "worker-1", "worker-2")
# Written by whatever process imports the task family: where that and our own code were found.
TRACE = """
import pathlib, cluster
with open(pathlib.Path.home() / "travelled", "a") as file:
    print(__file__, cluster.__file__, file=file)
"""
WHEEL = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "waves"
version = "1"
[tool.hatch.build.targets.wheel]
include = ["waves.py"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone on the user's laptop, with a task family of the user's, and with another one that is a package."""
    clone = tmp_path / "laptop" / "home" / "outertrain"
    clone.mkdir(parents=True)
    for name in COPIED:
        source = REPOSITORY / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, clone / name, ignore=ignore) if source.is_dir() else shutil.copy(source, clone)
    family, settings = (clone / "docs" / f"own_task.{kind}" for kind in ("py", "toml"))
    family.write_text(family.read_text() + TRACE)
    settings.write_text(settings.read_text().replace("updates = 100", "updates = 100\n[outer]\nupdates = 100000"))
    package = tmp_path / "waves"
    package.mkdir()
    (package / "pyproject.toml").write_text(WHEEL)
    shutil.copy(family, package / "waves.py")
    (clone / "waves.toml").write_text(settings.read_text().replace("own_task:", "waves:"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", ".", str(package)]
    subprocess.run(build, cwd=clone, check=True)
    return clone


@pytest.fixture
def machines(tmp_path: Path, checkout: Path) -> Iterator[Room]:
    links, interfaces = set[str](), os.listdir("/sys/class/net")
    with room(tmp_path, "laptop", *HOSTS) as made:
        for name in HOSTS:
            (made.hosts[name].home / "outertrain").mkdir()
            (made.hosts[name].home / "outertrain" / "venv").symlink_to(sys.prefix)
        links = {namespace(process.pid, "net") for process in (made.switch, *(h.outer for h in made.hosts.values()))}
        yield made
    assert not [line for pid, line in command_lines() if namespace(pid, "net") in links]
    assert os.listdir("/sys/class/net") == interfaces


def road(machines: Room) -> list[str]:
    """The commands of the README's section, with the room's addresses for its examples'."""
    text = (
        (REPOSITORY / "deploy" / "README.md").read_text().partition("## Machines in a room\n")[2].partition("\n## ")[0]
    )
    return [fill_in(line, machines) for line in re.findall(r"^ {4}(\S.*?)(?: {2,}#.*)?$", text, re.MULTILINE)]


def fill_in(text: str, machines: Room) -> str:
    return re.sub(r"([\w-]+)\.example", lambda name: machines.hosts[name[1]].address, text.replace("ubuntu", "root"))


def status(head: Host, run: str) -> dict:
    return json.loads(head.run(f"outertrain status {run} --json"))


def test_a_room_of_machines_from_ray_up_to_ray_down(machines: Room) -> None:
    laptop, head, *workers = machines.hosts.values()
    install, wheel, token, edit, up, launch, scale, stop, down, quiet = road(machines)
    assert install.endswith(". .venv/bin/activate") and wheel.startswith("pip wheel")  # done: by the fixtures
    editor = "sed -i -e " + " -e ".join(f"s/{name}.example/{machines.hosts[name].address}/" for name in HOSTS)
    begin = f"cd ~/outertrain; . {sys.prefix}/bin/activate; {token}; "
    laptop.run(f"{begin} export EDITOR='{editor} -e s/ubuntu/root/'; {edit}; {up}", 300)
    until(lambda: "3 local.cluster.node" in head.run("ray status"), 240, "all machines")

    for name in ("own_task.py", "own_task.toml"):
        laptop.run(f"{begin} ray rsync-up my-cluster.yaml docs/{name} {name}")
    laptop.run(f"{begin} ray rsync-up my-cluster.yaml waves.toml waves.toml")
    each = {host.address: 1 for host in workers}
    for run, settings in (("first", "own_task.toml"), ("second", "waves.toml")):
        laptop.run(begin + launch.replace("quickstart", settings).replace("first", run).replace("16", "1"))
        laptop.run(begin + scale.replace("first", run).replace("32", "2"))
    for run in ("first", "second"):
        until(lambda run=run: (at := status(head, run))["version"] >= 3 and at["nodes"] == each, 240, f"{run} to run")
    assert [p for p in head.processes() if p.startswith("ray::")]
    printed = laptop.run(f"{begin} ray exec my-cluster.yaml 'outertrain status first --json'")
    [told] = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert told["state"] == "running" and told["fleet"]["target"] == told["workers"] == 2 and told["nodes"] == each
    for host in workers:
        found = {Path(family).name: (family, ours) for family, ours in map(str.split, (host.home / "travelled").open())}
        assert "working_dir_files" in found["own_task.py"][0] and "site-packages" in found["waves.py"][0]
        assert all("site-packages" in ours for _, ours in found.values())

    for run in ("first", "second"):
        laptop.run(begin + stop.replace("first", run))
        assert status(head, run)["state"] == "stopped"
    laptop.run(begin + down, 120)
    laptop.run(begin + quiet, 120)
    for host in machines.hosts.values():
        until(lambda host=host: not host.processes(), 60, f"{host.name} to be quiet")
