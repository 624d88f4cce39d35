"""Runs in this process, to their end or killed in between."""

import pytest

from cluster.launchers import in_process
from cluster.launchers.in_process import InProcessRun
from cluster.runs import directory
from common.config import Config
from workers.worker import Engine, make_engine

_ENGINES: dict[str, Engine] = {}  # by what an engine is made of


def compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the runs of several tests share an engine, as the workers of one run do: it keeps nothing of a run."""

    def shared(config: Config) -> Engine:
        made_of = (
            config.task,
            config.dataset,
            config.mixture,
            config.optimizer,
            config.estimator,
            config.workers.segment,
        )
        if (key := repr(made_of)) not in _ENGINES:
            _ENGINES[key] = make_engine(config)
        return _ENGINES[key]

    monkeypatch.setattr(in_process, "make_engine", shared)


def train(name: str, wanted: Config, steps: int | None = None) -> directory.RunDirectory:
    """Runs to the end, or for some samples and then stops like a killed process, without closing anything."""
    run = directory.find(name) if name in directory.names() else directory.create(name, wanted)
    host = InProcessRun(run, wanted)
    taken = 0
    while taken != steps and host.advance():
        taken += 1
    if steps is None:
        host.__exit__()
    else:
        host._service._endpoint.close()
        host._log.close()
    return run
