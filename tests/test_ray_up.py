"""A cluster of one's own machines, from `ray up` to `ray down`, by the commands of deploy/README.md, in namespaces.

What differs from a user's network: the hosts find the pinned dependencies installed, because nothing is downloaded there,
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
from typing import Any

import pytest
from helpers.netns import REPOSITORY, Host, Network, command_lines, namespace, until, virtual_network

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore:os.fork")]

COPIED = ("common", "learner", "workers", "cluster", "deploy", "docs", "pyproject.toml", "README.md", "LICENSE")
HOSTS = ("head", "worker-1", "worker-2")
# Written by whatever process imports the user's file: where that, a package of the user's and our own were found.
TRACE = """
import pathlib, cluster, waves
with open(pathlib.Path.home() / "travelled", "a") as file:
    print(__file__, waves.__file__, cluster.__file__, file=file)
"""
SETTINGS = """
[task]
family = "own_task:family"
inner_steps = 8
[optimizer]
family = "sgd"
[curriculum]
start = 2
end = 4
[outer]
updates = 1000000
"""
PACKAGE = """
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
    """A clone on the user's laptop, with the shipped example of a task family and with a package that it needs."""
    clone = tmp_path / "laptop" / "home" / "outertrain"
    clone.mkdir(parents=True)
    for name in COPIED:
        source = REPOSITORY / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, clone / name, ignore=ignore) if source.is_dir() else shutil.copy(source, clone)
    (clone / "own_task.py").write_text((clone / "docs" / "own_task.py").read_text() + TRACE)
    (clone / "own_task.toml").write_text(SETTINGS)
    package = tmp_path / "waves"
    package.mkdir()
    (package / "pyproject.toml").write_text(PACKAGE)
    (package / "waves.py").write_text("")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", ".", str(package)]
    subprocess.run(build, cwd=clone, check=True)
    return clone


@pytest.fixture
def machines(tmp_path: Path, checkout: Path) -> Iterator[Network]:
    links, interfaces = set[str](), os.listdir("/sys/class/net")
    with virtual_network(tmp_path, "laptop", *HOSTS) as made:
        for name in HOSTS:
            (made.hosts[name].home / "outertrain").mkdir()
            (made.hosts[name].home / "outertrain" / "venv").symlink_to(sys.prefix)
        links = {namespace(process.pid, "net") for process in (made.switch, *(h.outer for h in made.hosts.values()))}
        yield made
    assert not [line for pid, line in command_lines() if namespace(pid, "net") in links]
    assert os.listdir("/sys/class/net") == interfaces


def readme_commands(machines: Network) -> list[str]:
    """The commands of the README's section, with the addresses of the test's hosts."""
    text = (
        (REPOSITORY / "deploy" / "README.md").read_text().partition("## Your own machines\n")[2].partition("\n## ")[0]
    )
    return [fill_in(line, machines) for line in re.findall(r"^ {4}(\S.*?)(?: {2,}#.*)?$", text, re.MULTILINE)]


def fill_in(text: str, machines: Network) -> str:
    return re.sub(r"([\w-]+)\.example", lambda name: machines.hosts[name[1]].address, text.replace("ubuntu", "root"))


def status(head: Host) -> dict[str, Any]:
    return json.loads(head.run("outertrain status first --json"))


def running(host: Host, what: str) -> bool:
    return any(what in line for line in host.processes())


def test_ray_up_commands_of_the_readme_deploy_and_clean_up(machines: Network) -> None:
    laptop, head, *workers = machines.hosts.values()
    install, wheel, token, edit, up, launch, scale, stop, down, quiet = readme_commands(machines)
    assert install.endswith(". .venv/bin/activate") and wheel.startswith("pip wheel")  # done: by the fixtures
    editor = "sed -i -e " + " -e ".join(f"s/{name}.example/{machines.hosts[name].address}/" for name in HOSTS)
    begin = f"cd ~/outertrain; . {sys.prefix}/bin/activate; {token.partition(' && ')[0]}; "
    laptop.run(f"{begin} {token}; export EDITOR='{editor} -e s/ubuntu/root/'; {edit}; {up}", 300)
    until(lambda: all(running(host, "raylet/raylet") for host in workers), 240, "all machines")
    until(lambda: "3 local.cluster.node" in head.run("ray status"), 240, "all machines to be known")

    for name in ("own_task.py", "own_task.toml"):
        laptop.run(f"{begin} ray rsync-up my-cluster.yaml {name} {name}")
    laptop.run(begin + launch.replace("quickstart", "own_task.toml").replace("16", "1"))
    laptop.run(begin + scale.replace("32", "2"))
    each = {host.address: 1 for host in workers}
    until(lambda: (at := status(head))["version"] >= 3 and at["nodes"] == each, 240, "both workers")
    assert running(head, "ray::LearnerActor") and running(head, "ray::FleetActor")  # where the run directory is
    printed = laptop.run(f"{begin} ray exec my-cluster.yaml 'outertrain status first --json'")
    [told] = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert told["state"] == "running" and told["fleet"]["target"] == told["workers"] == 2 and told["nodes"] == each
    for host in workers:
        file, package, ours = (host.home / "travelled").read_text().split()[:3]
        assert "working_dir_files" in file and "site-packages" in package and "site-packages" in ours

    laptop.run(begin + stop)
    assert status(head)["state"] == "stopped"
    laptop.run(f"{begin} {down}; {quiet}")
    for host in machines.hosts.values():
        until(lambda host=host: not host.processes(), 60, f"{host.name} to be quiet")
