"""MLflow: a server at `tracking.uri` or $MLFLOW_TRACKING_URI, or else files in the run's folder `tracking/mlflow`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

# A server that is down is answered by a sentence soon; MLflow's own defaults repeat a call for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from cluster.tracking.sink import TrackedRun

PARAMETERS = 100  # of one call, at most
LONGEST = 500  # characters of a parameter that every version of MLflow takes


class MlflowSink:
    """A run of the experiment `tracking.project`."""

    def __init__(self, tracked: TrackedRun):
        settings = tracked.config.tracking
        uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or tracked.folder.as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(uri)
        if tracked.identity is not None:
            self.identity = tracked.identity
            self._client.update_run(self.identity, "RUNNING")
            return
        experiment = self._client.get_experiment_by_name(settings.project)
        number = self._client.create_experiment(settings.project) if experiment is None else experiment.experiment_id
        self.identity = self._client.create_run(number, run_name=tracked.name).info.run_id
        parameters = [Param(key, value[:LONGEST]) for key, value in tracked.parameters().items()]
        for start in range(0, len(parameters), PARAMETERS):
            self._client.log_batch(self.identity, params=parameters[start : start + PARAMETERS])

    def log(self, version: int, time: float, scalars: Mapping[str, float]) -> None:
        metrics = [Metric(name, value, int(1000 * time), version) for name, value in scalars.items()]
        self._client.log_batch(self.identity, metrics=metrics)

    def store(self, files: Sequence[Path]) -> None:
        for path in files:
            self._client.log_artifact(self.identity, str(path))

    def close(self) -> None:
        self._client.set_terminated(self.identity)


open_sink = MlflowSink
