"""The shell functions and the batch file of deploy/slurm, with stand-ins for the commands of Slurm, Ray and outertrain.

tests/test_slurm.py runs them on a real Slurm.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parent.parent / "deploy"
STATUS = '{"version": 3, "target": 10, "fleet": {"target": 4, "given_up": %d}}'
RECORDED = 'echo "$(basename $0) $*" >> $CALLS'


class Place:
    """A folder for a job, whose commands are scripts."""

    def __init__(self, folder: Path):
        self.folder, self.calls, self.runs = folder, folder / "calls", folder / "runs"
        (folder / "venv" / "bin").mkdir(parents=True)
        (folder / "deploy").symlink_to(DEPLOY)
        self.calls.touch()
        (folder / "venv" / "bin" / "python").symlink_to(sys.executable)  # a system may have none, only python3
        for name in ("squeue", "srun", "scancel", "scontrol", "sbatch", "ray", "outertrain"):
            self.command(name)

    def command(self, name: str, script: str = "") -> None:
        """Makes a command that records its arguments, and then does what the script says."""
        path = self.folder / "venv" / "bin" / name
        path.write_text(f"#!/bin/bash\n{RECORDED}\n{script}\n")
        path.chmod(0o755)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        ours = {
            "CALLS": str(self.calls),
            "OUTERTRAIN_VENV": str(self.folder / "venv"),
            "OUTERTRAIN_RUNS": str(self.runs),
            "OUTERTRAIN_RAY_FOLDER": str(self.folder),
            "OUTERTRAIN_POLL_SECONDS": "0",
            "SLURM_JOB_ID": "7",
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_CPUS_PER_TASK": "2",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": "here",
            "SLURMD_NODENAME": "here",
        }
        return {**os.environ, **ours, **more}

    def start(self, script: str, **more: str) -> subprocess.Popen[str]:
        script = f"umask 022; . deploy/slurm/env.sh; {script}"
        return subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment(more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, **more: str) -> tuple[int, str]:
        process = self.start(script, **more)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_ray_starts_in_a_folder_of_its_owner_alone(place: Place) -> None:
    code, _ = place.run("start_node --head")
    assert code == 0 and place.calls.read_text().startswith("ray start --head --block --temp-dir=")
    assert (place.folder / "ot-7").stat().st_mode & 0o777 == 0o700


def test_folder_that_was_open_to_others_is_closed(place: Place) -> None:
    (place.folder / "ot-7").mkdir(mode=0o777)
    assert place.run("start_node --head")[0] == 0
    assert (place.folder / "ot-7").stat().st_mode & 0o777 == 0o700


def test_folder_that_somebody_has_linked_is_not_used(place: Place) -> None:
    (place.folder / "elsewhere").mkdir()
    (place.folder / "ot-7").symlink_to(place.folder / "elsewhere")
    code, out = place.run("start_node --head")
    assert code == 1 and "belongs to another user: set OUTERTRAIN_RAY_FOLDER" in out
    assert place.calls.read_text() == ""


@pytest.mark.parametrize(
    ("printed", "seconds"),
    [("4:59", "299"), ("1:02:03", "3723"), ("2-00:00:08", "172808"), ("08:09", "489"), ("UNLIMITED", "")],
)
def test_seconds_left_are_what_slurm_says(place: Place, printed: str, seconds: str) -> None:
    place.command("squeue", f"echo {printed}")
    assert place.run("seconds_left")[1].strip() == seconds


def test_seconds_left_without_the_controller_are_the_jobs_own(place: Place) -> None:
    place.command("squeue", "exit 1")
    end = int(time.time()) + 500
    assert 490 < int(place.run("seconds_left", SLURM_JOB_END_TIME=str(end))[1]) <= 500


@pytest.mark.parametrize(
    ("script", "runs"),
    [
        ("echo 5", True),
        ("true", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", True),
    ],
)
def test_job_runs_unless_slurm_denies_it(place: Place, script: str, runs: bool) -> None:
    place.command("squeue", script)
    assert place.run("job_runs 5")[0] == (0 if runs else 1)


def test_jobs_that_start_together_take_a_run_in_turn(place: Place) -> None:
    place.command("squeue", "echo 5")  # both run
    once = "lock_run night; [ ! -e inside ] || echo both; touch inside; sleep 0.2; rm inside; unlock_run night"
    jobs = [place.start(once, SLURM_JOB_ID=str(job)) for job in (8, 9)]
    assert [job.communicate(timeout=60)[0] for job in jobs] == ["", ""]
    assert list((place.runs / ".slurm" / "night").iterdir()) == []


def test_lock_of_a_killed_job_is_removed(place: Place) -> None:
    assert place.run("lock_run night", SLURM_JOB_ID="8")[0] == 0
    assert place.run("lock_run night; unlock_run night")[0] == 0  # `squeue` lists no job 8


def test_lock_where_nothing_can_be_written_is_a_sentence(place: Place) -> None:
    place.runs.write_text("")
    code, out = place.run("lock_run night")
    assert code == 1 and "cannot be written: set OUTERTRAIN_RUNS" in out


def test_lock_where_no_link_can_be_made_is_a_sentence(place: Place) -> None:
    place.command("ln", "exit 1")
    code, out = place.run("lock_run night")
    assert code == 1 and "no symbolic link can be made" in out


def sbatch(place: Place, **more: str) -> tuple[int, str]:
    """Runs run.sbatch. Ray's head is a step that lasts until it is cancelled."""
    place.command("hostname", "echo 127.0.0.1")
    place.command("srun", "[[ $* != *--head* ]] || { echo $$ > $CALLS.head; exec sleep 60; }")
    # On a busy machine the step may not have begun yet.
    place.command("scancel", "until [ -s $CALLS.head ]; do sleep 0.05; done; kill $(cat $CALLS.head)")
    return place.run(f"exec bash {shlex.quote(str(DEPLOY / 'slurm' / 'run.sbatch'))} mini night", **more)


def test_run_whose_workers_are_all_abandoned_ends_the_job(place: Place) -> None:
    place.command("outertrain", f"[ $1 != status ] || echo '{STATUS % 4}'")
    code, out = sbatch(place)
    calls = place.calls.read_text()
    assert code == 1 and "all workers failed repeatedly; the last error: outertrain logs night" in out
    assert "outertrain launch mini --name night --resume --workers 1" in calls
    assert "outertrain stop night" in calls and "scontrol requeue" not in calls
    assert not (place.runs / ".slurm" / "night" / "address").exists()


def test_stop_is_given_the_time_that_is_left(place: Place) -> None:
    place.command("outertrain", f"[ $1 != status ] || echo '{STATUS % 4}'")
    place.command("squeue", "[[ $* != *%L* ]] || echo 10:00")
    place.command("timeout", 'shift; exec "$@"')
    sbatch(place)
    assert "timeout 510 outertrain stop night" in place.calls.read_text()


def test_job_of_a_run_that_another_has_is_not_started(place: Place) -> None:
    place.command("squeue", "echo 5")
    state = place.runs / ".slurm" / "night"
    state.mkdir(parents=True)
    (state / "address").write_text("RAY_ADDRESS=127.0.0.1:1\nhead_job=5\n")
    code, out = sbatch(place)
    assert code == 2 and "the run night belongs to the running job 5: cancel that one first" in out
    assert [path.name for path in state.iterdir()] == ["address"] and "outertrain" not in place.calls.read_text()


def test_address_file_holds_any_text_as_one_word(place: Place) -> None:
    """Jobs of the same run source the file: an address must not become a command."""
    place.command("ray", "[ $1 != health-check ] || cp $OUTERTRAIN_RUNS/.slurm/night/address $CALLS.address")
    place.command("outertrain", f"[ $1 != status ] || echo '{STATUS % 4}'")
    hostile = "1.2.3.4 $(touch executed); touch 'executed'\n#"
    sbatch(place, OUTERTRAIN_HEAD_IP=hostile)
    (place.runs / ".slurm" / "night" / "address").write_text(Path(f"{place.calls}.address").read_text())
    code, out = place.run('attach night; printf %s "$RAY_ADDRESS"')
    assert code == 0 and out.startswith(hostile + ":2")
    assert not (place.folder / "executed").exists()
