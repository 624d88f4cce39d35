"""Weights & Biases: a run of the project `tracking.project`; with $WANDB_MODE=offline, files in `tracking/wandb`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import wandb

from cluster.tracking.sink import TrackedRun


class WandbSink:
    """A run of wandb. $WANDB_API_KEY, $WANDB_BASE_URL and $WANDB_MODE are wandb's own."""

    def __init__(self, tracked: TrackedRun):
        if os.environ.get("WANDB_MODE") not in ("offline", "disabled") and not wandb.login(prompt=False):
            raise RuntimeError("it has no API key: run `wandb login`, or set WANDB_MODE=offline")
        self._name = tracked.name
        self._run = wandb.init(
            project=tracked.config.tracking.project,
            name=tracked.name,
            id=tracked.identity,
            resume="allow" if tracked.identity else None,
            dir=str(tracked.folder),
            config={} if tracked.identity else dict(tracked.parameters()),
            settings=wandb.Settings(console="off", silent=True, init_timeout=30, x_disable_stats=True),
        )
        self.identity = str(self._run.id)

    def log(self, version: int, time: float, scalars: Mapping[str, float]) -> None:
        self._run.log({"time": time, **scalars}, step=version)

    def store(self, files: Sequence[Path]) -> None:
        artifact = wandb.Artifact(
            "".join(c if c.isalnum() or c in "._-" else "-" for c in self._name), "outer-training"
        )
        for path in files:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        self._run.finish()


open_sink = WandbSink
