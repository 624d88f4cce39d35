"""Hosts on one machine: namespaces of network, mounts, processes and names, an ssh server in each, a switch between.

A host has its own /tmp, home of root, /dev/shm, /run, processes and address; the Python environment of the tests as a
copy on write, so that what it installs is its alone; and the repository, read-only. It ends with the process that made
it, however that ends: its first process reads a pipe that is closed then.

Needs root, Linux with overlayfs, and Debian's `openssh-server`, `rsync`, `iproute2`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

NETWORK = "10.77.0"  # inside the namespaces only: the machine itself has no part in it
HOME = "/root"
PATH = os.defpath + ":/usr/sbin:/sbin"
REPOSITORY = Path(__file__).resolve().parents[2]
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "bash", "-ec")
# A folder that is hidden may hold what another one needs: that is kept at hand below /mnt meanwhile.
HOST = """
mount -t tmpfs none /mnt
mkdir /mnt/own /mnt/python /mnt/repository /mnt/venv /mnt/changes /mnt/work
mount --bind "$OWN" /mnt/own
mount --bind "$PYTHON" /mnt/python
mount --bind "$REPOSITORY" /mnt/repository
mount --bind "$VENV" /mnt/venv
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm
mount --bind /mnt/own/tmp /tmp
mount --bind /mnt/own/home "$HOME"
mkdir -p /run/sshd "$PYTHON" "$REPOSITORY"
mount --bind /mnt/python "$PYTHON"
mount --bind -o ro /mnt/repository "$REPOSITORY"
mkdir -p "$VENV"
mount -t overlay overlay "$VENV" -o lowerdir=/mnt/venv,upperdir=/mnt/changes,workdir=/mnt/work
mount -t proc proc /proc
for file in hosts nsswitch.conf; do
    mount --bind /mnt/own/$file /etc/$file
done
hostname "$NAME"
ip link set lo up
echo ready
read -r _
ip address add "$ADDRESS/24" dev eth0
ip link set eth0 up
ip route add default dev eth0
/usr/sbin/sshd -f /mnt/own/sshd_config -h /mnt/own/hostkey
echo ready
read -r _
"""
SWITCH = "ip link add switch type bridge; ip link set switch up; echo ready; read -r _"
FILES = {  # of each host
    "sshd_config": f"PermitRootLogin prohibit-password\nAuthorizedKeysFile {HOME}/.ssh/authorized_keys\nStrictModes no\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "home/.bashrc": "",
    "home/.ssh/config": "StrictHostKeyChecking accept-new\n",
}


class Host(NamedTuple):
    """A machine of its own, to look at."""

    name: str
    address: str
    folder: Path  # its files, as the tests see them: home, tmp
    outer: subprocess.Popen[str]  # waits for the host's first process

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, script: str, seconds: float = 120) -> str:
        """What a shell on the host prints to standard output."""
        words = [*enter(self.outer), "env", f"--chdir={HOME}", "bash", "--login", "-ec", f". ~/.bashrc; {script}"]
        done = subprocess.run(
            words,
            env={"HOME": HOME, "USER": "root", "TERM": "dumb", "PATH": PATH},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{self.name}: {script}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def processes(self) -> list[str]:
        """Command lines of all that runs on the host but its first process and its ssh server."""
        inside = os.readlink(f"/proc/{self.outer.pid}/ns/pid_for_children")
        lines = [line for pid, line in command_lines() if namespace(pid, "pid") == inside]
        return [line for line in lines if not line.startswith(("bash -ec", "sshd:", "/usr/sbin/sshd"))]


class Room(NamedTuple):
    """Hosts, and the switch that joins them."""

    switch: subprocess.Popen[str]
    hosts: dict[str, Host]

    def cut(self, name: str) -> None:
        """From now on nothing reaches the host and nothing leaves it; its cable still carries a signal."""
        self._port(name, "nomaster")

    def heal(self, name: str) -> None:
        self._port(name, "master", "switch")

    def _port(self, name: str, *words: str) -> None:
        subprocess.run([*enter(self.switch), "ip", "link", "set", f"p-{name}", *words], check=True)


@contextmanager
def room(folder: Path, *names: str) -> Iterator[Room]:
    """Hosts of these names, each reachable from each by name, and by ssh as root with one key, ~/.ssh/id_ed25519."""
    assert os.getuid() == 0, "hosts are made of namespaces, which only root may make: run this test as root"
    with ExitStack() as stack:
        switch = stack.enter_context(_started(SWITCH))
        _await_ready(switch)
        room = Room(switch, {})
        addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 1)}
        _make_key(folder / "key")
        for name, address in addresses.items():
            own = folder / name
            _prepare(own, folder / "key", addresses)
            outer = stack.enter_context(_started(HOST, OWN=str(own), NAME=name, ADDRESS=address))
            room.hosts[name] = Host(name, address, own, outer)
        for host in room.hosts.values():
            _await_ready(host.outer)
            _plug(host, room)
        for host in room.hosts.values():
            _await_ready(host.outer)
        yield room


@contextmanager
def _started(script: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A first process in namespaces of its own. All others there end with it."""
    fixed = {"HOME": HOME, "REPOSITORY": str(REPOSITORY), "PYTHON": sys.base_prefix, "VENV": sys.prefix}
    outer = subprocess.Popen(
        [*UNSHARE, script],
        env={"PATH": PATH, **fixed, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield outer
    finally:
        outer.communicate(timeout=60)


def _await_ready(outer: subprocess.Popen[str]) -> None:
    assert outer.stdout is not None
    assert outer.stdout.readline() == "ready\n", "this machine refuses namespaces, or lacks a program: see its words"


def _plug(host: Host, room: Room) -> None:
    """A cable from the host to the switch; then the host goes on starting."""
    ends = f"eth0 netns {host.outer.pid} type veth peer name p-{host.name} netns {room.switch.pid}"
    subprocess.run(["ip", "link", "add", *ends.split()], check=True)
    subprocess.run([*enter(room.switch), "ip", "link", "set", f"p-{host.name}", "up"], check=True)
    room.heal(host.name)
    assert host.outer.stdin is not None
    print(file=host.outer.stdin, flush=True)


def _prepare(own: Path, key: Path, addresses: dict[str, str]) -> None:
    """What a host finds on its disk."""
    ssh = own / "home" / ".ssh"
    ssh.mkdir(parents=True)
    (own / "tmp").mkdir()
    (own / "tmp").chmod(0o1777)
    for name, text in FILES.items():
        (own / name).write_text(text)
    (ssh / "id_ed25519").write_text(key.read_text())
    (ssh / "id_ed25519").chmod(0o600)
    (ssh / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    lines = [f"{address} {name}" for name, address in {"localhost": "127.0.0.1", **addresses}.items()]
    (own / "hosts").write_text("\n".join(lines) + "\n")
    _make_key(own / "hostkey")


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def enter(outer: subprocess.Popen[str]) -> list[str]:
    """The beginning of a command line whose rest runs inside."""
    return ["nsenter", f"--target={outer.pid}", "-m", "-n", "-u", "-i", f"--pid=/proc/{outer.pid}/ns/pid_for_children"]


def command_lines() -> Iterator[tuple[int, str]]:
    """Process ids and command lines of all that runs on this machine."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if words := process.cmdline():
                yield process.pid, " ".join(words).strip()


def namespace(pid: int, kind: str) -> str:
    """The name of a process's namespace; "" when it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def until(holds: Callable[[], object], seconds: float, what: str) -> float:
    """Other programs tell us nothing when they are ready: asks until they are; returns the seconds it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"waited {seconds} s for {what}"
        time.sleep(0.25)
    return time.monotonic() - began
