"""Target files: where Prometheus finds an endpoint (its file-based service discovery).

One file per run and role, overwritten when the process moves to another port, removed when it ends as it should: a file
that stays behind a process that died is what makes `OutertrainLearnerDown` fire.
"""

import json
import os
import socket
from pathlib import Path

from common.errors import UserError

FOLDER_VARIABLE = "OUTERTRAIN_TARGETS"  # a folder beside Prometheus's configuration on this node


def folders(run_dir: Path) -> list[Path]:
    """Where target files go: the run directory, and the folder that the environment names, if any."""
    beside = os.environ.get(FOLDER_VARIABLE)
    return [run_dir, Path(beside)] if beside else [run_dir]


def target_text(run: str, role: str, address: str, port: int) -> str:
    """The file's JSON. An endpoint on all interfaces is announced under this machine's own address."""
    host = _own_address() if address in ("0.0.0.0", "::", "") else address
    host = f"[{host}]" if ":" in host else host
    labels = {"job": "outertrain", "run": run, "role": role}
    return json.dumps([{"targets": [f"{host}:{port}"], "labels": labels}], indent=1) + "\n"


def write_targets(run_dir: Path, run: str, role: str, address: str, port: int) -> list[Path]:
    """Write the file into every folder, atomically: Prometheus may read at any moment. UserError if it cannot."""
    text, written = target_text(run, role, address, port), []
    for folder in folders(run_dir):
        path = folder / target_name(run_dir, folder, run, role)
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(text)
            temporary.replace(path)
        except OSError as error:
            raise UserError(
                f"cannot write Prometheus's target file {path} ({(error.strerror or '').lower()}): "
                f"make the folder writable, or unset {FOLDER_VARIABLE}"
            ) from error
        written.append(path)
    return written


def remove_targets(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def forget_targets(run_dir: Path, run: str, role: str) -> None:
    """Remove the files of a process that was ended from outside, on purpose."""
    remove_targets([folder / target_name(run_dir, folder, run, role) for folder in folders(run_dir)])


def target_name(run_dir: Path, folder: Path, run: str, role: str) -> str:
    return f"metrics-{role}.json" if folder == run_dir else f"outertrain-{run}-{role}.json"


def read_address(run_dir: Path, role: str = "learner") -> str | None:
    """host:port of the endpoint that runs now, None if there is none."""
    try:
        return str(json.loads((run_dir / f"metrics-{role}.json").read_text())[0]["targets"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _own_address() -> str:
    """The address that other machines reach this one by; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: only the routing table is asked
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
