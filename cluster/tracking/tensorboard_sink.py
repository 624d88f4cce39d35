"""TensorBoard event files in the run's folder `tracking/tensorboard`; no server, no TensorFlow."""

import time as clock
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from cluster.tracking.sink import TrackedRun


class TensorBoardSink:
    """One event file for each start of the learner; a resumed run hides what an earlier one wrote past its version."""

    identity = "tensorboard"

    def __init__(self, tracked: TrackedRun):
        self._writer = EventFileWriter(str(tracked.folder))
        self._version = tracked.version
        if tracked.identity is None:
            rows = "\n".join(f"| {key} | {value} |" for key, value in tracked.parameters().items())
            self._text("configuration", f"| key | value |\n|---|---|\n{rows}")
        else:
            log = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=clock.time(), step=tracked.version + 1, session_log=log))

    def log(self, version: int, time: float, scalars: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=f"outer/{name}", simple_value=value) for name, value in scalars.items()]
        self._writer.add_event(Event(wall_time=time, step=version, summary=Summary(value=values)))

    def store(self, files: Sequence[Path]) -> None:
        self._text("files", "\n".join(f"- `{path}`" for path in files))  # TensorBoard keeps no files

    def close(self) -> None:
        self._writer.flush()
        self._writer.close()

    def _text(self, tag: str, text: str) -> None:
        metadata = create_summary_metadata(display_name=tag, description="")
        value = Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto([text]))
        self._writer.add_event(Event(wall_time=clock.time(), step=self._version, summary=Summary(value=[value])))


open_sink = TensorBoardSink
