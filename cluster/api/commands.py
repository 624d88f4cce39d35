"""`outertrain.train` and `outertrain.evaluate`: the commands as functions, each in a process of its own.

The process of the caller keeps its JAX, its threads and its signal handlers. Messages go to standard error, as those of
the commands do.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from cluster.api.load import load
from cluster.api.reference import reference
from common.configfile import toml
from common.errors import UserError
from common.own_task.task import Task

PREFIX = "outertrain: "  # of the sentence that says why a command failed


class Trained(NamedTuple):
    """A finished run."""

    name: str
    report: Path  # the page of plots
    facts: Mapping[str, Any]  # what `outertrain train --json` prints

    def optimizer(
        self, version: int | str | None = None, total_steps: int | None = None
    ) -> optax.GradientTransformationExtraArgs:
        """The learned optimizer, with the arguments of `outertrain.load`."""
        return load(self.name, version, total_steps)


def train(
    task: Task | str | None = None,
    config: str | Path | None = None,
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    start: str | Path | None = None,
    in_process: bool = False,
) -> Trained:
    """Outer-trains an optimizer on this machine, evaluates it and writes its report.

    Args:
      task: an `outertrain.Task` of an importable module, or "module:name"; default: that of the configuration.
      config: a TOML file or a preset (default: own-task where a task is given, else quickstart).
      name: of the run.
      settings: keys of the configuration with their values, such as {"outer.updates": 100}.
      start: a run, a theta file or an included optimizer whose theta outer-training begins with; default: random.
      in_process: one process, without Ray; deterministic.

    Raises:
      UserError: the request cannot be met; the text says why.
    """
    family = {} if task is None else {"task.family": task if isinstance(task, str) else reference(task)}
    source = config or ("own-task" if task is not None else "quickstart")
    named = [] if name is None else ["--name", name]
    begun = [] if start is None else ["--from", str(start)]
    facts = _run(["train", str(source), *named, *begun, *_options({**family, **(settings or {})}, in_process)])
    return Trained(facts["run"], Path(facts["report"]), facts)


def evaluate(
    *optimizers: str | Path,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    in_process: bool = False,
) -> dict[str, Any]:
    """Compares learned optimizers with tuned baselines on unseen tasks; returns what `outertrain evaluate --json` prints.

    Args:
      optimizers: runs, theta files, names of included optimizers, and baselines to compare these with.
      config: whose tasks theta files are evaluated on: a TOML file or a preset.
      settings, in_process: as those of `train`.

    Raises:
      UserError: the request cannot be met; the text says why.
    """
    tasks = [] if config is None else ["--config", str(config)]
    return _run(["evaluate", *map(str, optimizers), *tasks, *_options(settings or {}, in_process)])


def _options(settings: Mapping[str, Any], in_process: bool) -> Sequence[str]:
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={toml(_plain(key, value))}")]
    return [*pairs, *(["--in-process"] if in_process else []), "--json"]


def _plain(key: str, value: Any) -> Any:
    """The value of a setting in the types of TOML. Raises UserError where it has none."""
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        return {name: _plain(key, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, item) for item in value]
    if not isinstance(value, bool | int | float | str):
        raise UserError(f"{key} = {value!r} has the wrong type: a number, text, list or table is expected")
    return value


def _run(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs a command and returns the JSON object that it prints. Raises UserError where it fails."""
    command = [sys.executable, "-P", "-m", "cluster.cli.main", *arguments]  # -P: no module of this folder replaces ours
    # A file, which the user's own code may print any amount to; a pipe would be full after 64 KiB. In a process group of
    # its own the command gets no Ctrl-C of the terminal besides the one that is forwarded: the second would quit at once.
    with (
        TemporaryFile("w+", errors="replace") as answer,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=answer,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            bufsize=1,
            env=_environment(),
            process_group=0,
        ) as process,
    ):
        sentence = _follow(process)
        answer.seek(0)
        printed = answer.read().strip()
    if process.returncode:
        raise UserError(sentence or f"the command {' '.join(arguments)} ended with code {process.returncode}")
    facts: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return facts


def _follow(process: subprocess.Popen[str]) -> str:
    """Copies standard error of a command to that of this process, to its end, and returns the last sentence.

    Each KeyboardInterrupt is forwarded: at the first one the command writes a checkpoint, and says so. It is raised again
    when the command has ended.
    """
    assert process.stderr is not None
    sentence, interrupt = "", None
    while True:
        try:
            for line in process.stderr:
                sentence = line.removeprefix(PREFIX).strip() or sentence
                sys.stderr.write(line)
            process.wait()
            break
        except KeyboardInterrupt as error:
            if process.poll() is not None:  # another process holds its standard error open
                raise
            interrupt = error
            process.send_signal(signal.SIGINT)
    if interrupt is not None:
        raise interrupt
    return sentence


def _environment() -> dict[str, str]:
    """That of this process, without the JAX options set for this process alone."""
    return {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"} | {"PYTHONUNBUFFERED": "1"}
