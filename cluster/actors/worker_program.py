"""What a worker process holds: the worker, and the evaluator for items of jobs. JAX is imported when it is made."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from cluster.actors.exchange_client import Call
from common import configfile, runtime
from common.config import Config

USER_FOLDER = "user"  # in the working directory that travels: the modules of the user's own task family


class Workplace(Protocol):
    """Computes samples and items in one thread."""

    def step(self) -> bool:
        """One sample and its exchange; False when the learner wants no more."""
        ...

    def perform(self, item: dict[str, Any]) -> dict[str, Any]:
        """The row of an item."""
        ...


Program = Callable[[Config, str, Call], Workplace]


class ForJobs:
    """Computes items only. The evaluator is made when the first one comes."""

    def __init__(self, config: Config, uid: str = "", exchange: Call | None = None):
        self._config = config
        self._evaluator: Any = None

    def step(self) -> bool:
        return False

    def perform(self, item: dict[str, Any]) -> dict[str, Any]:
        from workers.evaluation import search
        from workers.evaluation.evaluator import Evaluator

        if self._evaluator is None:
            self._evaluator = Evaluator(self._config)
        if item["kind"] == "search":
            return search.perform(self._evaluator, item)
        return self._evaluator.perform(item)


class ForRuns(ForJobs):
    """Computes samples, and items behind them."""

    def __init__(self, config: Config, uid: str, exchange: Call):
        from workers.worker import Worker

        super().__init__(config)
        self._worker = Worker(config, uid, exchange)
        runtime.share(self._worker.sampler.compilations())

    def step(self) -> bool:
        return not self._worker.step().stop


FOR_JOBS, FOR_RUNS = f"{__name__}:ForJobs", f"{__name__}:ForRuns"


def make_workplace(program: str, config_text: str, uid: str, exchange: Call) -> Workplace:
    """Runs `module:name`, a `Program`, with this configuration (TOML)."""
    enter_user_folder()
    module, _, name = program.partition(":")
    make: Program = getattr(importlib.import_module(module), name)
    return make(read_config(config_text), uid, exchange)


def read_config(text: str) -> Config:
    """The run's configuration, as it travels to its processes."""
    return configfile.from_dict(configfile.parse(text, "the run's configuration"))


def enter_user_folder() -> None:
    """Makes the user's modules importable, behind everything else: none of theirs can replace one of ours."""
    folder = Path.cwd() / USER_FOLDER
    if folder.is_dir():
        os.chdir(folder)
        sys.path.append(str(folder))
