"""Prometheus target files (file-based service discovery): where the metrics endpoints of a run are.

One file per run and role. It is replaced when the process gets another port, and removed when it ends in an orderly
way: a file that remains after a crash is what makes the alert `OutertrainLearnerDown` fire.
"""

import json
import os
import socket
from pathlib import Path

from cluster.runs.directory import RunDirectory
from common import files
from common.errors import UserError

LEARNER, FLEET = "learner", "fleet"  # roles; also the names of their Ray actors
FOLDER_VARIABLE = "OUTERTRAIN_TARGETS"  # a second folder for the files, next to Prometheus's configuration on this node


def target_files(run: RunDirectory, role: str) -> list[Path]:
    """The target files of a role: in the run directory and, if the variable is set, in the second folder."""
    second = os.environ.get(FOLDER_VARIABLE)
    return [run.target_file(role), *([Path(second) / f"outertrain-{run.name}-{role}.json"] if second else [])]


def target_text(run: str, role: str, address: str, port: int) -> str:
    """The content of a target file. An endpoint on all interfaces is announced under this node's own address."""
    host = _own_address() if address in ("0.0.0.0", "::", "") else address
    host = f"[{host}]" if ":" in host else host
    labels = {"job": "outertrain", "run": run, "role": role}
    return json.dumps([{"targets": [f"{host}:{port}"], "labels": labels}], indent=1) + "\n"


def write_targets(run: RunDirectory, role: str, address: str, port: int) -> list[Path]:
    """Writes the target files, atomically: Prometheus may read them at any time. Returns their paths.

    Raises:
      UserError: a file cannot be written.
    """
    text, paths = target_text(run.name, role, address, port), target_files(run, role)
    for path in paths:
        try:
            files.replace(path, text, mode=0o644)  # Prometheus is another user, whatever our umask
        except OSError as error:
            raise UserError(
                f"cannot write Prometheus's target file {path} ({(error.strerror or '').lower()}): "
                f"make the folder writable, or unset {FOLDER_VARIABLE}"
            ) from error
    return paths


def remove_targets(run: RunDirectory, role: str) -> None:
    """Removes the target files of a process that has ended in an orderly way, or was ended on purpose."""
    for path in target_files(run, role):
        path.unlink(missing_ok=True)


def read_address(run: RunDirectory, role: str) -> str | None:
    """Returns host:port of the announced endpoint, or None."""
    try:
        return str(json.loads(run.target_file(role).read_text())[0]["targets"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _own_address() -> str:
    """The address of this node in its network. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: only the routing table is consulted
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
