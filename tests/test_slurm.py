"""The batch files of deploy/slurm/ on a real Slurm, whose nodes are hosts of namespaces.

Needs root, Linux with overlayfs, and Debian's `munge`, `slurmctld`, `slurmd`, `slurm-client`, `openssh-server` and `iproute2`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.netns import until
from helpers.slurm import CORES, Slurm, slurm

from common import checkpoint
from learner.checkpoints import latest_checkpoint

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore:os.fork")]

UPDATES = 120
TASK = """
import time
from common.task import quadratic
from common.config import TaskConfig

def family(config):
    plain = quadratic(TaskConfig(family="quadratic", inner_steps=config.task.inner_steps))
    def sample(random, split):
        time.sleep(0.1)  # so that a run lasts longer than it takes to stop it
        return plain.sample(random, split)
    return plain._replace(sample=sample)
"""
CONFIG = f"""
[task]
family = "slow_task:family"
inner_steps = 4
[optimizer]
family = "sgd"
[curriculum]
start = 4
end = 4
stagger = false
[outer]
updates = {UPDATES}
"""
SIZE = f"--cpus-per-task={CORES} --mem-per-cpu=1G --time=20"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm"), "node-1", "node-2", "node-3") as made:
        (made.shared / "slow_task.py").write_text(TASK)
        (made.shared / "run.toml").write_text(CONFIG)
        yield made


def status(cluster: Slurm) -> dict[str, Any]:
    """Empty before there is a run to ask about."""
    if not (cluster.shared / "runs" / "first" / "config.toml").exists():
        return {}
    return json.loads(cluster.run("OUTERTRAIN_RUNS=runs .venv/bin/outertrain status first --json"))


def test_job_at_time_limit_is_requeued_and_resumes(cluster: Slurm) -> None:
    addresses = [host.address for host in cluster.hosts.values()]
    settings = "OUTERTRAIN_WORKER_JOBS='--array=1 --mem-per-cpu=1G' OUTERTRAIN_POLL_SECONDS=1"
    submit = f"{settings} sbatch --parsable --nodes=2 {SIZE} deploy/slurm/run.sbatch run.toml first --workers 4"
    job = cluster.run(submit).strip()

    def on_all_nodes() -> bool:
        at = status(cluster)
        return at.get("version", 0) >= 3 and at["nodes"].keys() == set(addresses)

    until(on_all_nodes, 180, "updates, with workers on both nodes of the job and on the one of the array")
    inside = ". deploy/slurm/env.sh; attach first; outertrain scale first 3"
    cluster.run(f"srun --overlap --jobid={job} --nodes=1 --ntasks=1 bash -c '{inside}'")
    until(lambda: status(cluster)["fleet"]["target"] == 3, 30, "the number of workers to change")
    cluster.run(f"scancel --batch --signal=USR1 {job}")  # as --signal has it sent before the time limit
    until(lambda: cluster.state(job) == "PENDING", 120, "the job to be requeued")

    run = cluster.shared / "runs" / "first"
    [*_, last] = (run / "history.jsonl").read_text().splitlines()
    stopped_at = json.loads(last)["version"]
    assert 3 <= stopped_at < UPDATES
    assert checkpoint.load(latest_checkpoint(run))["version"] == stopped_at
    until(lambda: not cluster.run("squeue --noheader --name=outertrain-workers"), 30, "the array to end")
    assert_quiet(cluster)

    until(lambda: cluster.state(job) not in ("PENDING", "RUNNING", "COMPLETING"), 240, "the job to end")
    assert cluster.state(job) == "COMPLETED", log_of(cluster, job)
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [line["version"] for line in lines] == list(range(1, UPDATES + 1))
    assert [line["epoch"] for line in lines] == [1] * stopped_at + [2] * (UPDATES - stopped_at)
    assert_quiet(cluster)


def assert_quiet(cluster: Slurm) -> None:
    """No process of Ray and no folder of its sessions is left on any node."""
    for host in cluster.hosts.values():
        until(lambda host=host: not [line for line in host.processes() if "ray" in line], 30, f"no Ray on {host.name}")
        until(lambda host=host: not list((host.folder / "tmp").glob("ot-*")), 30, f"no folder of Ray on {host.name}")


def log_of(cluster: Slurm, job: str) -> str:
    return (cluster.shared / f"outertrain-{job}.log").read_text()


@pytest.mark.parametrize(
    ("command", "log", "sentence"),
    [
        ("run.sbatch", "outertrain-{}.log", "run.sbatch needs a configuration and a name for the run"),
        ("workers.sbatch none", "outertrain-workers-{}_4294967294.log", "no job has started the run 'none'"),
    ],
)
def test_job_without_arguments_fails_with_sentence(cluster: Slurm, command: str, log: str, sentence: str) -> None:
    job = cluster.run(f"sbatch --parsable --nodes=1 {SIZE} deploy/slurm/{command}").strip()
    until(lambda: cluster.state(job) == "FAILED", 60, "the job to fail")
    [line] = Path(cluster.shared / log.format(job)).read_text().splitlines()
    assert sentence in line


def test_second_job_of_a_running_run_fails_with_sentence(cluster: Slurm) -> None:
    first = cluster.run(f"sbatch --parsable --nodes=1 {SIZE} --output=/dev/null --wrap 'sleep 300'").strip()
    until(lambda: cluster.state(first) == "RUNNING", 60, "the first job to run")
    state = cluster.shared / "runs" / ".slurm" / "taken"
    state.mkdir(parents=True)
    (state / "address").write_text(f"RAY_ADDRESS=127.0.0.1:1\nhead_job={first}\n")
    job = cluster.run(f"sbatch --parsable --nodes=1 {SIZE} deploy/slurm/run.sbatch run.toml taken").strip()
    until(lambda: cluster.state(job) == "FAILED", 60, "the second job to fail")
    cluster.run(f"scancel {first}")
    assert f"the run taken belongs to the running job {first}: cancel that one first" in log_of(cluster, job)
    assert (state / "address").read_text().endswith(f"head_job={first}\n")
