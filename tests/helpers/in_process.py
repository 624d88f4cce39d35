"""Runs in this process, to their end or killed in between."""

from cluster.launchers.in_process import InProcessRun
from cluster.runs import directory
from common.config import Config


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
