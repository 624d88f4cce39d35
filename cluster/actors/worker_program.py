"""What a worker process runs: the sampler, and the evaluator for jobs. JAX is imported when a program is created."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from cluster.jobs.job import MEMBER, NAME, Json
from common import configfile, runtime
from common.config import Config
from common.exchange import Exchange

USER_FOLDER = "user"  # inside Ray's working directory: the modules of the user's own task family


class WorkerProgram(Protocol):
    """Computes samples and jobs, in one thread."""

    def step(self) -> bool:
        """Computes one sample and exchanges it; False when the learner needs no more."""
        ...

    def perform(self, job: Json) -> Json:
        """Returns the result of a job, JSON-able like the job."""
        ...


ProgramFactory = Callable[[Config, str, Exchange], WorkerProgram]  # (configuration, worker uid, exchange) -> program


class JobProgram:
    """Computes jobs only. The evaluator of a family of tasks is created for its first job."""

    def __init__(self, config: Config, uid: str = "", exchange: Exchange | None = None):
        self._config = config
        self._evaluators: dict[str, Any] = {}  # by family of the mixture

    def step(self) -> bool:
        return False

    def perform(self, job: Json) -> Json:
        from workers.evaluation.evaluator import Evaluator
        from workers.evaluation.perform import perform

        name = job.get(MEMBER, "")
        if name not in self._evaluators:
            configs = {member.name: member.config for member in self._config.members}
            self._evaluators[name] = Evaluator(configs[name])
        result = perform(self._evaluators[name], job)
        return {**result, NAME: job[NAME], MEMBER: name} if name else result


class TrainingProgram(JobProgram):
    """Computes samples, and jobs with lower priority."""

    def __init__(self, config: Config, uid: str, exchange: Exchange):
        from workers.worker import Worker, make_engine

        super().__init__(config)
        self._worker = Worker(config, uid, exchange, make_engine(config, keep_traces=True))
        runtime.compile_in_turn(self._worker.compilations())

    def step(self) -> bool:
        return not self._worker.step().stop


JOBS, TRAINING = f"{__name__}:JobProgram", f"{__name__}:TrainingProgram"  # as `load_program` takes them


def load_program(name: str, config_text: str, uid: str, exchange: Exchange) -> WorkerProgram:
    """Creates a program in this process.

    Args:
      name: `module:factory`, a `ProgramFactory`; the module may be the user's.
      config_text: the run's configuration as TOML.
      uid: name of this worker; a replacement has another one.
    """
    add_user_folder()
    module, _, factory = name.partition(":")
    create: ProgramFactory = getattr(importlib.import_module(module), factory)
    return create(parse_config(config_text), uid, exchange)


def parse_config(text: str) -> Config:
    """Parses the run's configuration as it is sent to the run's processes (TOML)."""
    return configfile.from_dict(configfile.parse(text, "the run's configuration"))


def add_user_folder() -> None:
    """Appends the user's modules to the import path, last: none of them can replace a module of ours."""
    folder = Path.cwd() / USER_FOLDER
    if folder.is_dir():
        os.chdir(folder)
        sys.path.append(str(folder))
