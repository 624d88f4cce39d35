"""Virtual hosts on one machine: namespaces (network, mount, process, name) with an ssh server each, and a switch.

A host has its own /tmp, root's home, /dev/shm, /run, processes and address; a copy-on-write view of the tests' Python
environment, so that its installations are its own; and the repository, read-only. It ends with the process that created
it, however that ends: its first process reads from a pipe that is then closed.

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

NETWORK = "10.77.0"  # exists inside the namespaces only
HOME = "/root"
PATH = os.defpath + ":/usr/sbin:/sbin"
REPOSITORY = Path(__file__).resolve().parents[2]
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "bash", "-ec")
# A mount may hide a folder that a later mount needs: the sources are bound below /mnt first.
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
    """A virtual host."""

    name: str
    address: str
    folder: Path  # its home and tmp, as the tests see them
    outer: subprocess.Popen[str]  # the parent of the host's first process

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, script: str, seconds: float = 120) -> str:
        """Runs a shell script on the host and returns its standard output."""
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
        """Command lines of all processes on the host, except its first process and its ssh server."""
        inside = os.readlink(f"/proc/{self.outer.pid}/ns/pid_for_children")
        lines = [line for pid, line in command_lines() if namespace(pid, "pid") == inside]
        return [line for line in lines if not line.startswith(("bash -ec", "sshd:", "/usr/sbin/sshd"))]


class Network(NamedTuple):
    """Hosts, and the switch that connects them."""

    switch: subprocess.Popen[str]
    hosts: dict[str, Host]

    def disconnect(self, name: str) -> None:
        """From now on no packet reaches or leaves the host; its link stays up."""
        self._port(name, "nomaster")

    def reconnect(self, name: str) -> None:
        self._port(name, "master", "switch")

    def _port(self, name: str, *words: str) -> None:
        subprocess.run([*enter(self.switch), "ip", "link", "set", f"p-{name}", *words], check=True)


@contextmanager
def virtual_network(folder: Path, *names: str) -> Iterator[Network]:
    """Starts hosts that reach each other by name, and by ssh as root with one key, ~/.ssh/id_ed25519."""
    assert os.getuid() == 0, "only root may create namespaces: run this test as root"
    with ExitStack() as stack:
        switch = stack.enter_context(_started(SWITCH))
        _await_ready(switch)
        network = Network(switch, {})
        addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 1)}
        _make_key(folder / "key")
        for name, address in addresses.items():
            own = folder / name
            _prepare(own, folder / "key", addresses)
            outer = stack.enter_context(_started(HOST, OWN=str(own), NAME=name, ADDRESS=address))
            network.hosts[name] = Host(name, address, own, outer)
        for host in network.hosts.values():
            _await_ready(host.outer)
            _plug(host, network)
        for host in network.hosts.values():
            _await_ready(host.outer)
        yield network


@contextmanager
def _started(script: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Starts a process in new namespaces. All other processes there end with it."""
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
    assert outer.stdout.readline() == "ready\n", (
        "namespaces are not permitted here, or a program is missing: see standard error"
    )


def _plug(host: Host, network: Network) -> None:
    """Connects the host to the switch, and lets it continue its start."""
    ends = f"eth0 netns {host.outer.pid} type veth peer name p-{host.name} netns {network.switch.pid}"
    subprocess.run(["ip", "link", "add", *ends.split()], check=True)
    subprocess.run([*enter(network.switch), "ip", "link", "set", f"p-{host.name}", "up"], check=True)
    network.reconnect(host.name)
    assert host.outer.stdin is not None
    print(file=host.outer.stdin, flush=True)


def _prepare(own: Path, key: Path, addresses: dict[str, str]) -> None:
    """Writes the files of a host."""
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
    """A command prefix that runs the rest of the command in the namespaces."""
    return ["nsenter", f"--target={outer.pid}", "-m", "-n", "-u", "-i", f"--pid=/proc/{outer.pid}/ns/pid_for_children"]


def command_lines() -> Iterator[tuple[int, str]]:
    """Process ids and command lines of all processes on this machine."""
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
    """Polls until `holds` is true; returns the seconds it took. Raises AssertionError after `seconds`."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"waited {seconds} s for {what}"
        time.sleep(0.25)
    return time.monotonic() - began
