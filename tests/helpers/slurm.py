"""A Slurm cluster of hosts in namespaces: munged and slurmd on each, slurmctld on the first, storage that all share.

Needs what `helpers.netns` needs, and Debian's `munge`, `slurmctld`, `slurmd` and `slurm-client`.
"""

import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from helpers.netns import REPOSITORY, Host, until, virtual_network

CORES = 2  # of each node, whatever the machine has
CONFIG = """
ClusterName=outertrain
SlurmctldHost={controller}
SlurmUser=root
AuthInfo=cred_expire=5
StateSaveLocation={shared}/controller
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={shared}/slurmctld.log
SlurmdLogFile={shared}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
NodeName={nodes} CPUs={cores} RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
DAEMONS = """
mkdir -p /run/munge /run/slurmd && chmod 755 /run/munge
munged --force --key-file={shared}/munge.key --socket=/run/munge/munge.socket.2 --pid-file=/run/munge/pid \
    --log-file=/run/munge/log --seed-file=/run/munge/seed
"""


class Slurm(NamedTuple):
    """The cluster, and the folder that all its hosts and the tests share."""

    shared: Path
    hosts: dict[str, Host]

    @property
    def controller(self) -> Host:
        return next(iter(self.hosts.values()))

    def run(self, script: str, seconds: float = 120) -> str:
        """What a shell on the controller, in the shared folder, prints to standard output."""
        return self.controller.run(f"cd {self.shared}; {script}", seconds)

    def state(self, job: str) -> str:
        """Slurm's word for where a job stands; "" once it is forgotten."""
        return self.run(f"squeue --noheader --states=all --format=%T --jobs={job} || true").strip()


@contextmanager
def slurm(folder: Path, *names: str) -> Iterator[Slurm]:
    """Nodes of these names. A copy of deploy/slurm and a link to the tests' environment lie in the shared folder."""
    shared = Path(tempfile.mkdtemp(prefix="outertrain-slurm-", dir="/var/tmp"))  # /tmp is each host's own
    try:
        with virtual_network(folder, *names) as made:
            cluster = Slurm(shared, made.hosts)
            _fill(cluster)
            for number, host in enumerate(made.hosts.values()):
                controller = "slurmctld; " if number == 0 else ""
                host.run(DAEMONS.format(shared=shared) + controller + f"slurmd -N {host.name}")
            until(lambda: cluster.run("sinfo -h -o %T").split() == ["idle"], 60, "all nodes to be idle")
            yield cluster
    finally:
        shutil.rmtree(shared)


def _fill(cluster: Slurm) -> None:
    shared = cluster.shared
    (shared / "controller").mkdir()
    (shared / "munge.key").write_bytes(secrets.token_bytes(128))
    (shared / "munge.key").chmod(0o600)
    text = CONFIG.format(controller=cluster.controller.name, shared=shared, nodes=",".join(cluster.hosts), cores=CORES)
    (shared / "slurm.conf").write_text(text)
    shutil.copytree(REPOSITORY / "deploy" / "slurm", shared / "deploy" / "slurm")
    (shared / ".venv").symlink_to(sys.prefix)
    for host in cluster.hosts.values():
        (host.home / ".bashrc").write_text(f"export SLURM_CONF={shared}/slurm.conf PYTHONPATH={REPOSITORY}\n")
