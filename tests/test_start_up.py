"""Commands that look at a run load no numerical library: seen in `sys.modules`, not by the clock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import run_files

from common.config import Config

SLOW = {"jax", "ray", "optax", "matplotlib", "scipy"}
PROGRAM = """
import sys
from cluster.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as error:
    code = error.code
print(code, *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["--help", "status night", "watch night --once", "list", "logs night"])
def test_command_that_only_reads_loads_no_slow_library(tmp_path: Path, command: str) -> None:
    run_files.write_run(tmp_path / "night", run_files.history(30), [], Config())
    environment = {**os.environ, "OUTERTRAIN_RUNS": str(tmp_path), "OUTERTRAIN_PROMETHEUS": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()], capture_output=True, text=True, env=environment
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code in ("0", "None"), done.stderr
    assert "cluster.cli.main" in modules and not SLOW & set(modules)
